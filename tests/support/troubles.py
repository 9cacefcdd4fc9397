"""A handler package whose samples misbehave as their names say, and a plain one for contrast."""

from __future__ import annotations

from pathlib import Path

from support.packages import HandlerPackage

TROUBLES = HandlerPackage(
    name="troubles",
    handlers={"troubles": "Troubles"},
    code='''
    """Each sample is a file; the first word of its content says what happens to it."""
    import ctypes
    import os
    import signal
    import subprocess
    import threading
    import time
    from pathlib import Path

    import msgspec
    from dscache_sdk import DatasetHandler, Sample, Scalar, Text

    HOARD = []


    def tell(path):
        """Write this process's id to a file, at once as a whole."""
        part = path.with_name(f"{path.name}.part")
        part.write_text(str(os.getpid()))
        part.replace(path)


    class Troubles(DatasetHandler, name="troubles"):
        class Options(msgspec.Struct, kw_only=True):
            size: int = 4
            batch_size: int | None = 4

        features = {"id": Text(), "pid": Scalar("int64"), "environment": Text()}

        def samples(self):
            self.counted = 0
            for name in self.raw.files("*.txt"):
                self.counted += 1
                yield Sample(name)

        def load(self, sample):
            assert self.counted, "what planning left in the handler is there in the workers"
            word = (self.raw / sample.id).read_text().strip()
            do = getattr(self, word.replace("-", "_"), None)
            return do(sample) if do else word

        def raises(self, sample):
            raise ValueError(f"nothing good in {sample.id}")

        def full(self, sample):
            raise OSError(28, "No space left on device")

        def segfault(self, sample):
            ctypes.string_at(0)

        def segfault_once(self, sample):
            flag = Path(self.base_data_path, "flag")
            if not flag.exists():
                flag.touch()
                ctypes.string_at(0)

        def kill_self(self, sample):
            os.kill(os.getpid(), signal.SIGKILL)

        def kill_parent(self, sample):
            os.kill(os.getppid(), signal.SIGKILL)
            self.hang(sample)

        def hold(self, sample):
            """Say in a file which process this is, and wait while there is a file `hold`."""
            tell(Path(self.base_data_path, f"{sample.id}.at"))
            while Path(self.base_data_path, "hold").exists():
                time.sleep(0.01)

        def fork_and_hold(self, sample):
            if Path(self.base_data_path, "hold").exists() and os.fork() == 0:
                time.sleep(1000)  # a process that keeps all descriptors of the worker
            self.hold(sample)

        def leak(self, sample):
            while True:
                HOARD.append(bytearray(1 << 24))

        def hang(self, sample):
            while True:
                time.sleep(60)

        def child(self, sample):
            sleeper = subprocess.Popen(["sleep", "1000"])
            Path(self.base_data_path, "child.pid").write_text(str(sleeper.pid))
            self.hang(sample)

        def thread(self, sample):
            threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()

        def chatter(self, sample):
            print("a word on standard output")
            os.write(1, b'{"event": "done"}\\n')

        def example(self, loaded, sample, rng):
            environment = "\\n".join(f"{name}={value}" for name, value in os.environ.items())
            return {
                "id": sample.id,
                "pid": os.getpid() if loaded == "pid" else 0,
                "environment": environment if loaded == "environment" else "",
            }
    ''',
)

PLAIN = HandlerPackage(
    name="plain-numbers",
    handlers={"numbers": "Numbers", "waiting": "Waiting", "halfway": "Halfway"},
    dependencies=(),
    code='''
    """Knows nothing of the SDK: the four methods, and records framed by hand."""
    import os
    import shutil
    import struct
    import time
    from pathlib import Path

    TABLE = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        TABLE.append(byte)


    def masked_crc(data):
        crc = 0xFFFFFFFF
        for byte in data:
            crc = TABLE[(crc ^ byte) & 255] ^ crc >> 8
        crc ^= 0xFFFFFFFF
        return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


    def framed(data):
        head = struct.pack("<Q", len(data))
        return (
            head + struct.pack("<I", masked_crc(head)) + data + struct.pack("<I", masked_crc(data))
        )


    def field(number, data):
        return bytes([number << 3 | 2, len(data)]) + data


    def example(value):
        feature = field(3, field(1, bytes([value])))
        return field(1, field(1, field(1, b"number") + field(2, feature)))


    class Numbers:
        def __init__(self, config, base_data_path):
            self.count = config.get("count", 3)
            self.base_data_path = base_data_path

        @staticmethod
        def config_options():
            return {"count": {"type": int, "default": 3}}

        def as_tfrecord(self):
            paths = []
            for split in ("val", "train"):
                path = Path(f"numbers-{split}.tfrecord")
                path.write_bytes(b"".join(framed(example(START + n)) for n in range(self.count)))
                paths.append(str(path))
            return paths

        def tf_records_mapper(self, files):
            raise NotImplementedError


    class Waiting(Numbers):
        """Waits between its files while there is a file `hold` in the folder `flags`."""

        @staticmethod
        def config_options():
            return {"flags": {"type": str}}

        def __init__(self, config, base_data_path):
            super().__init__(config, base_data_path)
            self.flags = Path(config["flags"])

        def as_tfrecord(self):
            assert not list(Path().iterdir()), "the folder is as clean as at the first try"
            paths = super().as_tfrecord()
            self.wait()
            return paths

        def wait(self):
            part = self.flags / "at.part"
            part.write_text(str(os.getpid()))
            part.replace(self.flags / "at")
            while (self.flags / "hold").exists():
                time.sleep(0.01)


    class Halfway(Waiting):
        """While there is a file `hold`, it makes more records, and moving the second file waits."""

        def as_tfrecord(self):
            if not (self.flags / "hold").exists():
                return super().as_tfrecord()
            self.count += 1
            shutil.move = self.move
            return Numbers.as_tfrecord(self)

        def move(self, path, target):
            if "val" in Path(path).name:
                self.wait()
            os.replace(path, target)


    START = 1
    ''',
)


def write_samples(folder: Path, words: dict[str, str]) -> Path:
    """Raw data for the troubles handler: a file for each sample, holding its word."""
    folder.mkdir(parents=True, exist_ok=True)
    for sample, word in words.items():
        (folder / sample).write_text(word)
    return folder
