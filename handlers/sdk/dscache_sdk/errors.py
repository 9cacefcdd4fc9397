"""Everything the SDK raises on purpose.

    HandlerError
    ├── OptionsError           an option of the config is unknown, has a wrong type or a wrong value
    ├── RawDataError           the raw data is missing, empty or in an unexpected layout
    ├── SampleError            one sample could not be turned into examples
    ├── FeatureError           a value does not fit its feature
    ├── RecordError            a record file is damaged
    └── HandlerContractError   a handler class violates the contract

They can be pickled, because builders pass them between processes. A fault of the machine
(`machine_fault`) is none of them: it is raised as the original MemoryError or OSError.
"""

from __future__ import annotations

import errno

_MACHINE_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class HandlerError(Exception):
    """Base of all errors of the SDK."""


class OptionsError(HandlerError):
    """An option of the config is unknown, has a wrong type or a wrong value.

    Attributes:
        option: the option, with the index inside it (``image_size[0]``); "" for the whole config.
        message: what is wrong and what is expected.
    """

    def __init__(self, option: str, message: str) -> None:
        super().__init__(option, message)
        self.option = option
        self.message = message

    def __str__(self) -> str:
        return f"option '{self.option}': {self.message}" if self.option else self.message


class RawDataError(HandlerError):
    """The raw data is missing, empty or in a layout that the handler does not expect."""


class SampleError(HandlerError):
    """One sample could not be turned into examples.

    Attributes:
        sample_id: the sample's id (for images its path under the raw data).
        variation: 0, 1, …; None if loading failed, before any variation.
        message: the original exception, as one line.
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
    """A value does not fit its feature, or a feature is declared wrongly.

    Attributes:
        message: what is wrong and what is expected.
        feature: the feature's name; None while it is unknown.
    """

    def __init__(self, message: str, feature: str | None = None) -> None:
        super().__init__(message, feature)
        self.message = message
        self.feature = feature

    def __str__(self) -> str:
        return f"feature '{self.feature}': {self.message}" if self.feature else self.message


class RecordError(HandlerError):
    """A record file or a single record is damaged.

    Attributes:
        path: the file; None if the bytes did not come from a file.
        offset: position of the damage in the file (or the record), in bytes.
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
    """A handler class violates the contract; its author must change it."""


def machine_fault(error: BaseException) -> MemoryError | OSError | None:
    """The fault of the machine behind an error: out of memory, a full or broken disk, too many open
    files. None if there is no such fault in the error and its causes.

    The next sample would fail in the same way, so such a fault is not this sample's.
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
