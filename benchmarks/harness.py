"""What the benchmarks share: taking turns, medians and spreads, CPU seconds, tables."""

from __future__ import annotations

import os
import platform
import random
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple, TypeVar

T = TypeVar("T")
QUICK = bool(os.environ.get("QUICK"))
DSCACHE = str(Path(sys.executable).with_name("dscache"))  # as users start it
CLOCK_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class Cost(NamedTuple):
    """Seconds of one run."""

    wall_s: float
    cpu_s: float


class Spread(NamedTuple):
    """Median, least and greatest of some figures."""

    median: float
    low: float
    high: float

    def shown(self, digits: int = 2) -> str:
        """`1.23 (1.20–1.31)`"""
        return f"{self.median:.{digits}f} ({self.low:.{digits}f}–{self.high:.{digits}f})"


def spread(figures: Iterable[float]) -> Spread:
    """Of at least one figure."""
    ordered = sorted(figures)
    return Spread(statistics.median(ordered), ordered[0], ordered[-1])


def take_turns(variants: Mapping[str, Callable[[], T]], runs: int) -> dict[str, list[T]]:
    """Run every variant once to warm up, then all of them `runs` times, each round in another
    order: what the machine does meanwhile hits them alike."""
    results: dict[str, list[T]] = {name: [] for name in variants}
    order = list(variants)
    for number in range(runs + 1):
        for name in order:
            result = variants[name]()
            if number:
                results[name].append(result)
        random.Random(number).shuffle(order)
    return results


def measured(action: Callable[[], object]) -> Cost:
    """Wall and CPU seconds; the CPU of children counts once they have been waited for."""
    cpu, began = own_cpu_s(), time.perf_counter()
    action()
    return Cost(time.perf_counter() - began, own_cpu_s() - cpu)


def output_of(words: Sequence[str], environ: Mapping[str, str]) -> bytes:
    """What a program prints. Ends this one, with what the program said, when it fails."""
    done = subprocess.run(words, env=environ, check=False, capture_output=True, cwd="/")
    if done.returncode != 0:
        errors = done.stderr.decode(errors="replace")
        raise SystemExit(f"{' '.join(words)} ended with {done.returncode}:\n{errors}")
    return done.stdout


def own_cpu_s() -> float:
    """CPU seconds of this process and of the children it waited for."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def processes_below(pid: int) -> list[int]:
    """All descendants of a process."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += map(int, task.read_text().split())
        except OSError:  # a thread that has just ended
            continue
    return found + [below for child in found for below in processes_below(child)]


def cpu_of(pid: int) -> float | None:
    """CPU seconds of a running process without its children; None when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) * CLOCK_TICK_S


def rss_of(pid: int) -> int:
    """Resident bytes of a process; 0 when it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first are aligned to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def machine() -> str:
    """One line: processor, memory, versions of packages and programs."""
    cpu = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = ("numpy", "pillow", "opencv-python-headless", "tensorflow", "boto3")
    found = {name: _version(name) for name in packages} | _programs()
    versions = ", ".join(f"{name} {version}" for name, version in found.items() if version)
    return (
        f"{len(os.sched_getaffinity(0))} cores ({cpu}), {memory_gib:.0f} GiB, "
        f"Linux {platform.release()}, Python {platform.python_version()}, {versions}"
    )


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _programs() -> dict[str, str]:
    """Versions of the programs that are compared, "" for those that are not here."""
    from dscache.devstack import recipe

    sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
    from support.gotools import PROGRAMS, path_of

    curl = shutil.which("curl")
    said = output_of([curl, "--version"], os.environ).decode() if curl else ""
    built = {
        name: program.version if path_of(name, os.environ).is_file() else ""
        for name, program in PROGRAMS.items()
    }
    return {"curl": " ".join(said.split()[1:2]), **built, "MinIO": recipe.VERSION}
