"""What importing the SDK offers and what it costs."""

from __future__ import annotations

import subprocess
import sys

import dscache_sdk


def test_everything_listed_is_there() -> None:
    assert sorted(dscache_sdk.__all__) == dscache_sdk.__all__ != []
    assert all(hasattr(dscache_sdk, name) for name in dscache_sdk.__all__)


def test_importing_needs_neither_pillow_nor_tensorflow() -> None:
    code = (
        "import sys, dscache_sdk, dscache_sdk.plain, dscache_sdk.preview, dscache_sdk.reading\n"
        "import dataset_handlers\n"
        "heavy = {'PIL', 'tensorflow', 'google.protobuf', 'boto3', 'dscache'}\n"
        "print(*sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
