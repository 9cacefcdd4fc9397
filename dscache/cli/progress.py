"""Progress on standard error: a bar on a terminal, otherwise a line every 10 seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TextIO

from ..terminal import printable
from ..units import format_bytes

if TYPE_CHECKING:
    from ..protocol.manifests import Progress

LINE_EVERY_S = 10.0
BAR = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {rate_fmt} {remaining} left"
BUILD_BAR = (
    "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}"  # the builder estimates
)


class Display:
    """Shows the progress of a build, then of the download. Call `close` at the end.

    `downloading` says whether the download has started.
    """

    def __init__(
        self, *, quiet: bool = False, stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self._bars = self._stream.isatty()
        self._clock = clock
        self._line_at = -LINE_EVERY_S
        self._phase = ""
        self._bar: Any = None
        self.downloading = False

    def note(self, text: str) -> None:
        """Print a message."""
        if not self._quiet:
            self._end_bar()
            print(printable(f"dscache: {text}"), file=self._stream, flush=True)

    def progress(self, progress: Progress) -> None:
        """Show the progress of the build."""
        if self._quiet:
            return
        suffix = ", ".join(filter(None, (
            format_bytes(progress.bytes) if progress.bytes else "",
            _remaining(progress.remaining_s),
            f"{progress.bad} left out" if progress.bad else "",
        )))  # fmt: skip
        self._show(progress.phase, progress.done, progress.total, "ex", suffix)

    def transferred(self, done: int, total: int) -> None:
        """Show the progress of the download, in bytes."""
        self.downloading = True
        if not self._quiet:
            self._show("downloading", done, total, "B", f"{format_bytes(total)}")

    def close(self) -> None:
        """Remove the bar."""
        self._end_bar()

    def _show(self, phase: str, done: int, total: int, unit: str, suffix: str) -> None:
        if self._bars:
            self._draw(phase, done, total, unit, suffix)
            return
        now = self._clock()
        if phase != self._phase or now - self._line_at >= LINE_EVERY_S:
            self._phase, self._line_at = phase, now
            share = f" {100 * done // total} %" if total else ""
            details = f" ({suffix})" if suffix else ""
            print(printable(f"dscache: {phase}{share}{details}"), file=self._stream, flush=True)

    def _draw(self, phase: str, done: int, total: int, unit: str, suffix: str) -> None:
        if self._bar is None or phase != self._phase:
            self._end_bar()
            from tqdm import tqdm

            self._phase = phase
            self._bar = tqdm(
                total=total or None, desc=printable(phase), unit=unit, unit_scale=True,
                file=self._stream,
                initial=done if unit == "B" else 0,  # bytes from an earlier download have no rate
                leave=False, dynamic_ncols=True, unit_divisor=1024 if unit == "B" else 1000,
                bar_format=BAR if unit == "B" else BUILD_BAR, miniters=1,
            )  # fmt: skip
        if total and self._bar.total != total:
            self._bar.total = total
        if unit != "B":
            self._bar.set_postfix_str(suffix, refresh=False)
        if done > self._bar.n:  # an update by 0 would distort the rate
            self._bar.update(done - self._bar.n)
        else:
            self._bar.refresh()

    def _end_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _remaining(remaining_s: float) -> str:
    if remaining_s < 0:
        return ""
    minutes, seconds = divmod(round(remaining_s), 60)
    hours, minutes = divmod(minutes, 60)
    clock = f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
    return f"{clock} left"
