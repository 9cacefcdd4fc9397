"""Run a decoder on one input, and say what must not have happened."""

from __future__ import annotations

import resource
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

DECODES_S = 3.0  # processor time for up to a megabyte, coverage measured
ENDS_S = 30.0
MEMORY_BYTES = 1 << 30  # beyond what the process has already


class NoInput(Exception):
    """The bytes cannot be handed to this decoder: they are no text, or no JSON."""


class Endless(BaseException):
    """A decoder was ended. No decoder may catch this."""


@dataclass(frozen=True)
class Decoder:
    """A decoder, how it may refuse, and valid inputs made by the real encoders.

    Attributes:
        name: for people, and of the test.
        decode: takes bytes, and raises nothing but `refusals`.
        refusals: the documented errors.
        seeds: valid inputs; each is decoded without an error.
        form: "json", "toml", "text" or "binary"; see `mutation`.
        covers: dotted names of the functions that are tested here.
    """

    name: str
    decode: Callable[[bytes], object]
    refusals: tuple[type[Exception], ...]
    seeds: tuple[bytes, ...]
    form: str
    covers: tuple[str, ...]


@dataclass(frozen=True)
class Problem:
    """What was wrong: `kind` is the same for the same fault, `message` differs with the input."""

    kind: str
    message: str


def problem(decoder: Decoder, data: bytes, ends_s: float = ENDS_S) -> Problem | None:
    """Decode once; return what was wrong: a raw exception, or far too much time.

    After `ends_s` of processor time it is ended, unless it is within one call of native code.
    """
    started = time.process_time()
    try:
        with warnings.catch_warnings(), _ended_after(ends_s):
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", RuntimeWarning)  # numpy's, about numbers that are none
            decoder.decode(data)
    except Endless as error:
        return Problem(f"does not end{_where(error)}", f"{ends_s} s")
    except Exception as error:  # noqa: BLE001  what a fuzzer looks for
        if not isinstance(error, (NoInput, *decoder.refusals)):
            return Problem(f"{type(error).__name__}{_where(error)}", str(error)[:300])
    spent_s = time.process_time() - started
    return Problem("took too long", f"{spent_s:.1f} s") if spent_s > DECODES_S else None


@contextmanager
def _ended_after(seconds: float) -> Iterator[None]:
    def end(*_: object) -> None:
        raise Endless

    before = signal.signal(signal.SIGVTALRM, end)  # pytest-timeout has the other alarm
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _where(error: BaseException) -> str:
    trace, place = error.__traceback__, ""
    while trace is not None:
        code = trace.tb_frame.f_code
        if "dscache" in code.co_filename or "dataset_handlers" in code.co_filename:
            place = f" in {Path(code.co_filename).name}:{trace.tb_lineno}, {code.co_name}"
        trace = trace.tb_next
    return place


@contextmanager
def limited_memory(more_bytes: int = MEMORY_BYTES) -> Iterator[None]:
    """Let this process allocate no more than `more_bytes` within the block."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
