"""What a worker is given to do: a shard, a plain handler's whole run, or a preview."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Assignment:
    """One command for a worker, and what became of the attempts at it.

    `samples` and `examples` are what is planned; `tries` limits attempts where no sample is to
    blame; `bad` and `left_out` are bad samples by id, the latter those that killed workers.
    """

    command: dict[str, Any]
    name: str
    samples: int = 0
    examples: int = 0
    tries: int = 2
    deaths: list[str] = field(default_factory=list)
    bad: dict[str, dict[str, Any]] = field(default_factory=dict)
    left_out: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def message(self) -> dict[str, Any]:
        """The command as the worker gets it."""
        return {**self.command, "leave_out": list(self.left_out)}

    @property
    def bad_samples(self) -> list[dict[str, Any]]:
        """All samples that are missing in the result, sorted by id."""
        found = {**self.bad, **self.left_out}
        return [found[sample] for sample in sorted(found)]

    def begin(self) -> None:
        """An attempt starts: what an earlier one reported is void."""
        self.bad.clear()

    def leave_out(self, sample: str, message: str) -> None:
        """Leave out a sample that killed workers; its deaths no longer count.

        A time limit or a killed worker is no property of the data, so this is not repeatable.
        """
        self.left_out[sample] = {
            "sample": sample,
            "error": message,
            "traceback": "",
            "repeatable": False,
        }
        self.deaths = [other for other in self.deaths if other != sample]

    def examples_done(self, begun: int) -> int:
        """Estimate of the examples written when `begun` samples were begun."""
        if not self.samples:
            return 0
        return self.examples * max(0, begun - 1) // self.samples
