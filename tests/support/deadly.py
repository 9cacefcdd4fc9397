"""A handler that kills the builder: each sample is good, and loading it is the end."""

from __future__ import annotations

from support.packages import HandlerPackage

DEADLY = HandlerPackage(
    "deadly",
    handlers={"deadly": "Deadly"},
    code='''
    """Kills the builder, which is the nearest process above that was started as one."""

    import os
    import signal

    import msgspec
    from dscache_sdk import DatasetHandler, Sample, Scalar


    def builder_above(pid):
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            if b"dscache_builder" in file.read().split(bytes(1)):
                return pid
        with open(f"/proc/{pid}/stat") as file:
            return builder_above(int(file.read().rpartition(")")[2].split()[1]))


    class Deadly(DatasetHandler, name="deadly"):
        class Options(msgspec.Struct, kw_only=True):
            variant: int = 0

        features = {"number": Scalar("int64")}

        def samples(self):
            yield Sample("one")

        def load(self, sample):
            os.kill(builder_above(os.getpid()), signal.SIGKILL)

        def example(self, loaded, sample, rng):
            return {"number": 1}
    ''',
)
