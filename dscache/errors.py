"""Every error dscache raises, in one tree.

DscacheError                 exit code 1
├── UsageError                         2   invalid argument
│   ├── SpecError                          invalid spec
│   └── ConfigError                        invalid configuration file, profile or variable
│       └── UnknownProfile                 a profile that no file contains
├── BuildFailed                        3   the build failed
├── WaitTimeout                        4   the dataset was not ready in time
├── NotCached                          5   the dataset is not built, or the request does not exist
├── StoreError                         7   unexpected response of the store
│   ├── AccessDenied                   6   wrong credentials, or not permitted
│   ├── StoreUnreachable               7   no response
│   ├── StoreFull                      7   the store has no space left
│   ├── BucketMissing                  7   the bucket does not exist
│   ├── PreconditionFailed                 a conditional write was refused (internal)
│   ├── NoSuchUpload                       a multipart upload does not exist (internal)
│   └── InvalidPart                        a part does not exist with that etag (internal)
├── NoSpace                            1   not enough space on the local disk
└── IntegrityError                     8   data differs from its ready marker
    ├── ObjectTooLarge                 8   an object is larger than its kind may be
    ├── NotWritable                    8   an object is not written: nobody could read it
    ├── UnreadableObject               8   the store's answer about an object makes no sense
    └── DatasetReplaced                8   the zip was replaced or deleted during a download
"""

from __future__ import annotations

from typing import ClassVar

EXIT_OK = 0
EXIT_INTERRUPTED = 130


class DscacheError(Exception):
    """Base of all errors. `exit_code` is what the command line exits with."""

    exit_code: ClassVar[int] = 1


class UsageError(DscacheError):
    """An argument, an option or an input file is invalid."""

    exit_code = 2


class SpecError(UsageError):
    """The spec is invalid. The message names the place, e.g. ``dataset_config.crop_size[1]``."""


class ConfigError(UsageError):
    """A configuration file, profile or environment variable is invalid."""


class UnknownProfile(ConfigError):
    """No configuration file contains the selected profile, `profile`."""

    def __init__(self, message: str, *, profile: str = "") -> None:
        super().__init__(message)
        self.profile = profile


class BuildFailed(DscacheError):
    """The build for a request failed.

    `kind` is the failure class; `details` holds the remote traceback and the end of the log, or "".
    """

    exit_code = 3

    def __init__(self, message: str, *, kind: str = "", details: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.details = details


class WaitTimeout(DscacheError):
    """The dataset was not ready in time; the build continues."""

    exit_code = 4


class NotCached(DscacheError):
    """The dataset is not built and must not be requested, or a request does not exist."""

    exit_code = 5


class StoreError(DscacheError):
    """The object store gave an unexpected response."""

    exit_code = 7


class AccessDenied(StoreError):
    """The credentials are wrong, or their policy does not permit the request."""

    exit_code = 6


class StoreUnreachable(StoreError):
    """The endpoint does not respond."""


class StoreFull(StoreError):
    """The store refuses a write because its disk is full or a quota is used up."""


class BucketMissing(StoreError):
    """The endpoint responds, but the bucket does not exist."""


class PreconditionFailed(StoreError):
    """412: a conditional write was refused. It may have met its own success: read the object."""


class NoSuchUpload(StoreError):
    """The multipart upload does not exist: it was completed, aborted, or has expired."""


class InvalidPart(StoreError):
    """CompleteMultipartUpload named a part that does not exist with that etag."""


class NoSpace(DscacheError):
    """The local disk has not enough space for the dataset."""


class IntegrityError(DscacheError):
    """Data differs from what its ready marker says, or the marker itself is damaged."""

    exit_code = 8


class ObjectTooLarge(IntegrityError):
    """An object in the bucket is larger than an object of its kind may be."""


class NotWritable(IntegrityError):
    """An object is not written, because nobody could read it again."""


class UnreadableObject(IntegrityError):
    """The store answered a request for an object, but the answer cannot be understood.

    That says nothing about other objects: the metadata of one may be more than can be read.
    """


class DatasetReplaced(IntegrityError):
    """The zip was replaced or deleted during a download: read the ready marker again."""
