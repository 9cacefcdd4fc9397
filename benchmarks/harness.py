"""Shared by the benchmarks: alternating runs, medians and spreads, CPU seconds, tables."""

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
DSCACHE = str(Path(sys.executable).with_name("dscache"))  # the installed command
CLOCK_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class Cost(NamedTuple):
    """Wall and CPU seconds of one run."""

    wall_s: float
    cpu_s: float


class Spread(NamedTuple):
    """Median, minimum and maximum of some figures."""

    median: float
    low: float
    high: float

    def shown(self, digits: int = 2) -> str:
        """Return `1.23 (1.20–1.31)`."""
        return f"{self.median:.{digits}f} ({self.low:.{digits}f}–{self.high:.{digits}f})"


def spread(figures: Iterable[float]) -> Spread:
    """Return the spread of at least one figure."""
    ordered = sorted(figures)
    return Spread(statistics.median(ordered), ordered[0], ordered[-1])


def take_turns(variants: Mapping[str, Callable[[], T]], runs: int) -> dict[str, list[T]]:
    """Run every variant once to warm up, then all of them `runs` times.

    The order differs in each round, so that other load on the machine affects all variants alike.
    """
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
    """Return the cost of an action, including the CPU of children that it waited for."""
    cpu, began = own_cpu_s(), time.perf_counter()
    action()
    return Cost(time.perf_counter() - began, own_cpu_s() - cpu)


def output_of(argv: Sequence[str], environ: Mapping[str, str]) -> bytes:
    """Return what a program prints; exit with its error output if it fails."""
    done = subprocess.run(argv, env=environ, check=False, capture_output=True, cwd="/")
    if done.returncode != 0:
        errors = done.stderr.decode(errors="replace")
        raise SystemExit(f"{' '.join(argv)} exited with {done.returncode}:\n{errors}")
    return done.stdout


def own_cpu_s() -> float:
    """Return the CPU seconds of this process and the children it waited for."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def processes_below(pid: int) -> list[int]:
    """Return the ids of all descendants of a process."""
    children: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children += map(int, task.read_text().split())
        except OSError:  # the thread has just ended
            continue
    return children + [below for child in children for below in processes_below(child)]


def cpu_of(pid: int) -> float | None:
    """Return the CPU seconds of a process without its children; None if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) * CLOCK_TICK_S


def rss_of(pid: int) -> int:
    """Return the resident memory of a process in bytes; 0 if it has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; all columns except the first are right-aligned."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def machine() -> str:
    """Describe the machine in one line: processor, memory, versions of packages and programs."""
    cpu = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = ("numpy", "pillow", "opencv-python-headless", "tensorflow", "boto3")
    installed = {name: _version(name) for name in packages} | _programs()
    versions = ", ".join(f"{name} {version}" for name, version in installed.items() if version)
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
    """Return the versions of the compared programs, "" for missing ones."""
    from dscache.devstack import recipe

    sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
    from support.gotools import PROGRAMS, path_of

    curl = shutil.which("curl")
    curl_version = output_of([curl, "--version"], os.environ).decode() if curl else ""
    built = {
        name: program.version if path_of(name, os.environ).is_file() else ""
        for name, program in PROGRAMS.items()
    }
    return {"curl": " ".join(curl_version.split()[1:2]), **built, "MinIO": recipe.VERSION}
