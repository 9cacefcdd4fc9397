"""A handler package that writes down each sample it loads, and waits where a test tells it to."""

from __future__ import annotations

from pathlib import Path

from support.packages import HandlerPackage


def counting(version: str = "1.0.0", factor: int = 1) -> HandlerPackage:
    """The package at a version; its numbers are multiplied by `factor`, so versions differ.

    Raw data: text files with a number each. `loads.log` beside them gets a line per sample loaded.
    A sample waits while a file `<sample>.hold` lies beside it, and fails when it holds no number.
    """
    code = f"""
    import os
    import time

    import msgspec
    from dscache_sdk import DatasetHandler, Sample, Scalar, Tensor, Text

    FACTOR = {factor}


    class Counting(DatasetHandler, name="counting"):
        class Options(msgspec.Struct, kw_only=True):
            batch_size: int = 1
            padding: int = 0
            limit: int = 1000

        features = {{"id": Text(), "number": Scalar("int64"), "noise": Tensor((None,), "uint8")}}

        def samples(self):
            for name in self.raw.files("*.txt")[: self.options.limit]:
                yield Sample(name)

        def load(self, sample):
            path = self.raw / sample.id
            with open(path.parent / "loads.log", "a") as log:
                log.write(f"{{sample.id}} {{os.getpid()}}\\n")
            while path.with_suffix(".hold").exists():
                time.sleep(0.02)
            return int(path.read_text())

        def example(self, number, sample, rng):
            noise = rng.integers(0, 256, self.options.padding, dtype="uint8")
            return {{"id": sample.id, "number": number * FACTOR, "noise": noise}}
    """
    return HandlerPackage(
        name="counting", version=version, handlers={"counting": "Counting"}, code=code
    )


def write_numbers(folder: Path, count: int) -> Path:
    """Raw data for `counting`: files with the numbers 0 … count-1."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"{number:03d}.txt").write_text(str(number))
    return folder


def loads(folder: Path) -> list[str]:
    """Ids of the samples that were loaded, as often as they were."""
    log = folder / "loads.log"
    return [line.split()[0] for line in log.read_text().splitlines()] if log.exists() else []
