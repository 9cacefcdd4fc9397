"""The assignments of a worker: a shard, a plain handler's whole run, or a preview."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Assignment:
    """One command for a worker, and the results of the attempts at it.

    `samples` and `examples` are the planned numbers; `tries` limits the attempts in which workers
    die outside of any sample; `bad` and `left_out` are bad samples by id, the latter those that
    killed workers.
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
        """The command for the worker."""
        return {**self.command, "leave_out": list(self.left_out)}

    @property
    def bad_samples(self) -> list[dict[str, Any]]:
        """All samples that are missing in the result, sorted by id."""
        missing = {**self.bad, **self.left_out}
        return [missing[sample] for sample in sorted(missing)]

    def begin(self) -> None:
        """Start an attempt: forget the bad samples that an earlier one reported."""
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
        self.deaths = [death for death in self.deaths if death != sample]

    def examples_done(self, begun: int) -> int:
        """Estimate the examples written once `begun` samples were begun."""
        if not self.samples:
            return 0
        return self.examples * max(0, begun - 1) // self.samples
