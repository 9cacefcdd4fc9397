"""Handlers with unruly text, that damage their scratch folder, or whose raw data changes."""

from __future__ import annotations

from support.packages import HandlerPackage

UNRULY = HandlerPackage(
    "unruly",
    handlers={"unruly": "Unruly", "plainly": "Plainly"},
    code='''
    """The option `does` says what happens when the first sample is loaded."""

    import os
    import shutil
    import time
    from pathlib import Path

    import msgspec
    from dscache_sdk import DatasetHandler, Sample, Text
    from dscache_sdk.example import encode_example
    from dscache_sdk.records import RecordWriter

    SCRATCH = Path.cwd().parent
    RAW = []


    def wait_for_go(raw):
        """Tell the test that loading has begun, beside the raw data, and wait for its word."""
        (raw.parent / "begun").touch()
        while not (raw.parent / "go").exists():
            time.sleep(0.02)


    def surrogate(): raise ValueError("cannot read caf\\udce9.png")
    def huge(): raise ValueError("E" * 10_000_000)
    def no_scratch(): shutil.rmtree(SCRATCH)
    def no_log(): (SCRATCH / "handler.log").unlink()

    def pipe_log():
        (SCRATCH / "handler.log").unlink()
        os.mkfifo(SCRATCH / "handler.log")

    def link_shards():
        (SCRATCH / "shards").rename(SCRATCH / "other")
        (SCRATCH / "shards").symlink_to(os.environ.get("NOWHERE", SCRATCH.parent / "precious"))

    def touches(): (RAW[0] / "000.txt").touch()
    def nothing(): pass


    class Unruly(DatasetHandler, name="unruly"):
        class Options(msgspec.Struct, kw_only=True):
            does: str = "nothing"
            missing: int = 0
            error_chars: int = 0
            waits: bool = False
            batch_size: int = 1000

        features = {"text": Text()}

        def samples(self):
            RAW.append(self.raw.root)
            for name in self.raw.files("*.txt"):
                yield Sample(name)
            for number in range(self.options.missing):
                yield Sample(f"missing-{number:06d}")

        def load(self, sample):
            if sample.id.startswith("missing-"):
                raise ValueError("B" * self.options.error_chars)
            if self.options.waits:
                wait_for_go(self.raw.root)
            globals()[self.options.does]()
            return (self.raw / sample.id).read_text()

        def example(self, loaded, sample, rng):
            return {"text": loaded}


    class Plainly:
        def __init__(self, config, base_data_path):
            self.does = config.get("does", "nothing")
            self.waits = config.get("waits", False)
            self.raw = Path(base_data_path)

        @staticmethod
        def config_options():
            return {"does": {"type": str}, "waits": {"type": bool}}

        def as_tfrecord(self):
            if self.waits:
                wait_for_go(self.raw)
            globals()[self.does]()
            with RecordWriter("x-train.tfrecord") as writer:
                for path in sorted(self.raw.glob("*.txt")):
                    writer.write(encode_example({"text": path.read_text()}))
            return ["x-train.tfrecord"]

        def tf_records_mapper(self, files):
            raise NotImplementedError
    ''',
)
