"""Everything the SDK raises on purpose.

    HandlerError
    ├── OptionsError           an option of the config is unknown, mistyped or out of its limits
    ├── RawDataError           the raw data is missing, empty or not laid out as expected
    ├── SampleError            one sample could not be turned into examples
    ├── FeatureError           a value does not fit its feature
    ├── RecordError            a record file is damaged
    └── HandlerContractError   a handler class does not keep the contract

All of them survive pickling, because builders pass them between processes. What is the machine's
fault (`machine_fault`) is none of them: it is raised as the MemoryError or OSError that it is.
"""

from __future__ import annotations

import errno

_MACHINE_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class HandlerError(Exception):
    """Base of all errors of the SDK."""


class OptionsError(HandlerError):
    """An option of the config is unknown, mistyped or out of its limits.

    Attributes:
        option: the option, with its place inside (``image_size[0]``); empty when the config as a
            whole is meant.
        message: what is wrong with it and what is expected.
    """

    def __init__(self, option: str, message: str) -> None:
        super().__init__(option, message)
        self.option = option
        self.message = message

    def __str__(self) -> str:
        return f"option '{self.option}': {self.message}" if self.option else self.message


class RawDataError(HandlerError):
    """The raw data is missing, empty or not laid out as the handler expects."""


class SampleError(HandlerError):
    """One sample could not be turned into examples.

    Attributes:
        sample_id: the sample's id (for pictures its path under the raw data).
        variation: 0, 1, …; None when loading failed, before any variation.
        message: the original exception, in one line.
        traceback: the original traceback as text.
    """

    def __init__(
        self, sample_id: str, variation: int | None, message: str, traceback: str = ""
    ) -> None:
        super().__init__(sample_id, variation, message, traceback)
        self.sample_id = sample_id
        self.variation = variation
        self.message = message
        self.traceback = traceback

    def __str__(self) -> str:
        place = "" if self.variation is None else f", variation {self.variation}"
        return f"sample '{self.sample_id}'{place}: {self.message}"


class FeatureError(HandlerError):
    """A value does not fit its feature, or a feature cannot be made as asked.

    Attributes:
        message: what is wrong and what is expected.
        feature: the feature's name; None where it is not known (yet).
    """

    def __init__(self, message: str, feature: str | None = None) -> None:
        super().__init__(message, feature)
        self.message = message
        self.feature = feature

    def __str__(self) -> str:
        return f"feature '{self.feature}': {self.message}" if self.feature else self.message


class RecordError(HandlerError):
    """A record file, or one record of it, is damaged.

    Attributes:
        path: the file; None when the bytes did not come from a file.
        offset: where in the file (or in the record) the damage was found, in bytes.
        what: what is wrong there.
    """

    def __init__(self, path: str | None, offset: int, what: str) -> None:
        super().__init__(path, offset, what)
        self.path = path
        self.offset = offset
        self.what = what

    def __str__(self) -> str:
        return f"{self.path or 'record'} at byte {self.offset}: {self.what}"


class HandlerContractError(HandlerError):
    """A handler class does not keep the contract: the handler's author has to change it."""


def machine_fault(error: BaseException) -> MemoryError | OSError | None:
    """What the machine did wrong, if that is behind an error: no memory, a full or broken disk, no
    more open files. The next sample would meet it as well, so it says nothing about this one.

    Looked for in the error and in what it was raised from.
    """
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        if isinstance(cause, MemoryError):
            return cause
        if isinstance(cause, OSError) and cause.errno in _MACHINE_ERRNOS:
            return cause
        seen.append(cause)
        cause = cause.__cause__ or cause.__context__
    return None
