"""A download in a process of its own, which a test may kill and a benchmark may measure."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from dscache.protocol import manifests
from dscache.protocol.manifests import Live

CODE = """
import re, sys
from pathlib import Path
from dscache.protocol import manifests
from dscache.download.download import download
from dscache.download.options import TransferOptions
from dscache.protocol.manifests import Live

def peak_bytes():  # not ru_maxrss: that of a child begins with the peak of its parent
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

marker, to, url, parallel = sys.argv[1:]
live = manifests.decode(Path(marker).read_bytes(), Live, where=marker)
before = peak_bytes()
download(
    live, Path(to), lambda: url, options=TransferOptions(
        parallel=int(parallel) or None,
        progress=lambda done, total: print("done", done, flush=True),
    ),
)
print("grown", peak_bytes() - before)
"""


class Downloading:
    """It runs from the beginning; use as a context manager, which ends it by SIGKILL.

    `pid` is its process id. The marker is written beside the folder `to`.
    """

    def __init__(self, live: Live, url: str, to: Path, *, parallel: int | None = None) -> None:
        marker = to.with_name(f"{to.name}.marker.json")
        marker.write_bytes(manifests.encode(live))
        argv = [sys.executable, "-c", CODE, str(marker), str(to), url, str(parallel or 0)]
        self._process = subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.pid = self._process.pid

    def __enter__(self) -> Downloading:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def done(self) -> Iterator[int]:
        """Bytes that are done, as it reports them, until it ends."""
        for words in self._words():
            if words[0] == "done":
                yield int(words[1])

    def grown(self) -> int:
        """Wait for its end; bytes by which its peak memory grew during the download."""
        found = [int(words[1]) for words in self._words() if words[0] == "grown"]
        _, errors = self._process.communicate()
        assert found, errors
        return found[0]

    def kill(self) -> None:
        """SIGKILL, if it still runs."""
        self._process.kill()
        self._process.communicate()

    def _words(self) -> Iterator[list[str]]:
        assert self._process.stdout is not None
        return (line.split() for line in self._process.stdout)


def hidden(folder: Path) -> list[str]:
    """Names of the hidden files and folders: what an unfinished download leaves."""
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def interrupt(_: float) -> None:
    """A pause in which Ctrl-C is pressed."""
    raise KeyboardInterrupt
