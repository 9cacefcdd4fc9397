"""Every error dscache raises, in one tree.

DscacheError                 exit code 1
├── UsageError                         2   the caller's words are off
│   ├── SpecError                          a spec that has no key
│   └── ConfigError                        configuration file, profile or variable
│       └── UnknownProfile                 a profile that no file contains
├── BuildFailed                        3   the builder answered "failed"
├── WaitTimeout                        4   still being built when the time was up
├── NotCached                          5   --no-build, and it is not there
├── StoreError                         7   the store did something unexpected
│   ├── AccessDenied                   6
│   ├── StoreUnreachable               7
│   ├── BucketMissing                  7
│   ├── PreconditionFailed                 a conditional write lost (internal)
│   ├── NoSuchUpload                       a multipart upload is gone (internal)
│   └── InvalidPart                        a part is not as listed (internal)
├── NoSpace                            1   the local disk cannot hold the dataset
├── DatasetReplaced                    8   the zip changed under a download
└── IntegrityError                     8   bytes are not what the ready marker says
"""

from __future__ import annotations

from typing import ClassVar

EXIT_OK = 0
EXIT_INTERRUPTED = 130


class DscacheError(Exception):
    """Base of all errors. `exit_code` is what the command line exits with."""

    exit_code: ClassVar[int] = 1


class UsageError(DscacheError):
    """The caller's words are off: a file, an option, a name."""

    exit_code = 2


class SpecError(UsageError):
    """A spec that has no key. The message names the place, e.g. ``dataset_config.crop_size[1]``."""


class ConfigError(UsageError):
    """A configuration file, profile or variable that cannot be used."""


class UnknownProfile(ConfigError):
    """No configuration file contains the selected profile, `profile`."""

    def __init__(self, message: str, *, profile: str = "") -> None:
        super().__init__(message)
        self.profile = profile


class BuildFailed(DscacheError):
    """The builder answered this request with a failure.

    `kind` is the failure class, `details` the remote traceback and log tail (may be empty).
    """

    exit_code = 3

    def __init__(self, message: str, *, kind: str = "", details: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.details = details


class WaitTimeout(DscacheError):
    """The time to wait was up; the build goes on."""

    exit_code = 4


class NotCached(DscacheError):
    """The dataset is not there and building it was not wanted."""

    exit_code = 5


class StoreError(DscacheError):
    """The object store did something that was not expected."""

    exit_code = 7


class AccessDenied(StoreError):
    """The credentials are wrong, or their policy does not allow this."""

    exit_code = 6


class StoreUnreachable(StoreError):
    """No answer from the endpoint."""


class BucketMissing(StoreError):
    """The endpoint answers, but the bucket does not exist."""


class PreconditionFailed(StoreError):
    """412: a conditional write met another state. Read the object before concluding anything."""


class NoSuchUpload(StoreError):
    """The multipart upload is unknown: completed, aborted or expired."""


class InvalidPart(StoreError):
    """CompleteMultipartUpload named a part that is not there with that etag."""


class NoSpace(DscacheError):
    """The local disk has no room for the dataset."""


class IntegrityError(DscacheError):
    """Bytes are not what the ready marker says."""

    exit_code = 8


class DatasetReplaced(IntegrityError):
    """The zip under a download is gone or another one: look at the ready marker again."""
