"""How much of the code the tests run: branch coverage, when `coverage run` started them.

Python processes that the tests start are measured too: they inherit a variable that starts
coverage in them. Three kinds are not: those killed by SIGKILL, which write nothing; handlers,
whose own interpreters and environments have no coverage; and those started with `unmeasured()`.
"""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

PACKAGES = ("dscache", "dscache_builder", "dscache_sdk", "dataset_handlers")
ROOT = Path(__file__).resolve().parents[2]


def unmeasured(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """An environment without what starts coverage, for tests of what is imported and how soon."""
    return {name: value for name, value in environ.items() if not name.startswith("COVERAGE_")}


def figures() -> Iterator[str]:
    """A line that says how much was run, in all and by package; none when nobody measures."""
    try:
        import coverage
    except ImportError:
        return
    running = coverage.Coverage.current()
    if running is None:
        return
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")  # a process may have been killed while it wrote its data
        running.stop()
        running.save()
        whole = coverage.Coverage(config_file=str(ROOT / "pyproject.toml"))
        whole.combine(keep=True)
        whole.json_report(outfile=f"{folder}/report.json")
        report = json.loads(Path(folder, "report.json").read_text())
    there, covered = Counter[str](), Counter[str]()
    for name, file in report["files"].items():
        package = next(part for part in reversed(Path(name).parts) if part in PACKAGES)
        for key in ("all", package):
            there[key] += file["summary"]["num_statements"] + file["summary"]["num_branches"]
            covered[key] += file["summary"]["covered_lines"] + file["summary"]["covered_branches"]
    shares = {key: f"{100 * covered[key] / count:.1f} %" for key, count in there.items() if count}
    total = shares.pop("all")
    by_package = ", ".join(f"{key} {share}" for key, share in shares.items())
    yield f"branch coverage: {total} ({by_package})"
