"""What many threads do at once in a fresh process."""

from __future__ import annotations

import subprocess
import sys

from support.measured import unmeasured

PROCESSES = 12
DECODE = """
import sys, threading
sys.setswitchinterval(1e-6)
from dscache.protocol import manifests
from dscache.protocol.manifests import Live, Member
from dscache.spec import Spec

member = Member(name="x", offset=1, size=2, crc32=3, digest="d")
spec = Spec.of("photos", "1.0.0", {"a": 1})
live = Live(
    spec=spec, generation=0, zip_key="z", zip_etag="e", zip_size=1, seal="", members=[member]
)
body = manifests.encode(live)
gate = threading.Barrier(64)
found = []

def decode():
    gate.wait()
    found.append(manifests.decode_ready(body, where="x"))

threads = [threading.Thread(target=decode) for _ in range(64)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert found == [live] * 64
"""


def test_many_threads_may_decode_the_first_manifests() -> None:
    """msgspec crashed one process in four here, when each thread asked it for a decoder."""
    words = [sys.executable, "-c", DECODE]
    for _ in range(PROCESSES):
        done = subprocess.run(words, capture_output=True, text=True, check=False, env=unmeasured())
        assert done.returncode == 0, done.stderr or f"ended by signal {-done.returncode}"
