"""Decisions after a bad sample or a worker's death. Pure."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Literal

from .process import EXIT_OUT_OF_MEMORY, Ending

MAX_DEATHS = 4  # of one shard, on different samples: then the cause is not a sample
KILLS = (signal.SIGKILL, signal.SIGTERM)  # by the kernel without memory, daemons like it, people

Decision = Literal["again", "leave-out", "give-up"]


def after_death(deaths: Sequence[str], tries: int) -> Decision:
    """Decide what to do with a shard whose worker died.

    Args:
        deaths: the samples ("" outside of any) on which workers of this shard died, in order,
            except those that were left out since.
        tries: attempts in which workers die outside of any sample.

    Returns:
        "again": start over; "leave-out": start over without the last sample, which killed two
        workers; "give-up".
    """
    last = deaths[-1]
    if last and deaths.count(last) >= 2:
        return "leave-out"
    if not last and deaths.count("") >= tries:
        return "give-up"
    return "give-up" if len(deaths) >= MAX_DEATHS else "again"


def was_killed(ending: Ending, overdue: bool) -> bool:
    """Whether a process was killed from outside, and not for its time limit."""
    return ending.signal in KILLS and not overdue


def fewer_workers(limit: int, running: int) -> int:
    """How many workers go on after one of the `running` was killed, at most `limit` before."""
    return max(1, min(limit, running) // 2)


def allowed_bad(max_bad_samples: int | float, samples: int) -> int:
    """How many samples may be left out: a count, or (a float) a fraction of all samples.

    Raises ValueError if it is negative, or a fraction above 1.
    """
    if max_bad_samples < 0 or (isinstance(max_bad_samples, float) and max_bad_samples > 1):
        raise ValueError(f"max_bad_samples is a count, or a fraction 0.0–1.0: {max_bad_samples}")
    if isinstance(max_bad_samples, float):
        return int(max_bad_samples * samples)
    return max_bad_samples


def too_many_bad(message: str, bad: int, allowed: int) -> str:
    """The failure's message after one bad sample more than allowed."""
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
    """Failure kind and message for a process that died on a sample ("": on none)."""
    subject = f"sample '{sample}'" if sample else "the handler"
    if overdue:
        return "time-limit", f"{subject} took longer than {limit_s:g} s (limit for one sample)"
    if ending.code == EXIT_OUT_OF_MEMORY:
        limit = f"the {memory_bytes >> 20} MiB a process may use" if memory_bytes else "available"
        return "worker-killed", f"{subject} needs more memory than {limit}"
    place = f" on sample '{sample}'" if sample else ""
    return "worker-killed", f"the handler's process {ending}{place}"
