"""What follows from a bad sample or a dead worker. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from .process import EXIT_OUT_OF_MEMORY, Ending

MAX_DEATHS_ON_DIFFERENT_SAMPLES = (
    4  # deaths of one shard on ever other samples: the cause is not a sample
)

Decision = Literal["again", "leave-out", "give-up"]


def after_death(deaths: Sequence[str], tries: int) -> Decision:
    """What to do with a shard after its worker died.

    Args:
        deaths: the samples ("" when it was none) on which workers of this shard died, in order,
            without those that were left out since.
        tries: attempts that are made when no sample is to blame.

    Returns:
        "again": once more from the start; "leave-out": without the last sample, which killed two
        workers; "give-up".
    """
    last = deaths[-1]
    if last and deaths.count(last) >= 2:
        return "leave-out"
    if not last and deaths.count("") >= tries:
        return "give-up"
    return "give-up" if len(deaths) >= MAX_DEATHS_ON_DIFFERENT_SAMPLES else "again"


def allowed_bad(max_bad_samples: int | float, samples: int) -> int:
    """How many samples may be left out: a count, or (a float) a fraction of all samples.

    Raises ValueError when it is negative, or a fraction over 1.
    """
    if max_bad_samples < 0 or (isinstance(max_bad_samples, float) and max_bad_samples > 1):
        raise ValueError(f"max_bad_samples is a count, or a fraction 0.0–1.0: {max_bad_samples}")
    if isinstance(max_bad_samples, float):
        return int(max_bad_samples * samples)
    return max_bad_samples


def too_many_bad(message: str, bad: int, allowed: int) -> str:
    """The message of the failure when one sample more than allowed was bad."""
    if allowed == 0:
        return message
    return f"{message} ({bad} samples failed; max_bad_samples allows {allowed})"


def describe_death(
    ending: Ending,
    sample: str,
    overdue: bool,
    limit_s: float | None,
    memory_bytes: int | None,
) -> tuple[str, str]:
    """Failure class and message of a process that ended on a sample ("": on none)."""
    who = f"sample '{sample}'" if sample else "the handler"
    if overdue:
        return "time-limit", f"{who} took longer than {limit_s:g} s (limit for one sample)"
    if ending.code == EXIT_OUT_OF_MEMORY:
        limit = f"the {memory_bytes >> 20} MiB a process may use" if memory_bytes else "there is"
        return "worker-killed", f"{who} needs more memory than {limit}"
    on = f" on sample '{sample}'" if sample else ""
    return "worker-killed", f"the handler's process {ending}{on}"
