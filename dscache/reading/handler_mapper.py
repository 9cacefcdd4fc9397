"""Use the handler's own `tf_records_mapper`, if its package is installed at the right version."""

from __future__ import annotations

import inspect
import random
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import TYPE_CHECKING, Any

from dscache_sdk.errors import HandlerError
from dscache_sdk.handler import DatasetHandler
from dscache_sdk.plain import ENTRY_POINT_GROUP, checked_class

from ..errors import DscacheError, UsageError

if TYPE_CHECKING:
    import tensorflow as tf

    from dscache_sdk.shares import Share

    from ..spec import Spec

NO_RAW_DATA = "/nonexistent"  # a mapper reads only record files


def installed_handler(spec: Spec) -> Any:
    """Return the handler of a dataset if it has its own `tf_records_mapper`, else None.

    The handler is the entry point with the dataset's name, in a package of the handler's version.
    Raises DscacheError if it cannot be loaded.
    """
    points = metadata.entry_points(group=ENTRY_POINT_GROUP, name=spec.dataset_name)
    for point in points:
        if point.dist is None or point.dist.version != spec.handler_version:
            continue
        with _as_dscache_error(f"the handler {spec.dataset_name}"):
            kind = checked_class(point.load(), spec.dataset_name)
            if kind.tf_records_mapper is not DatasetHandler.tf_records_mapper:
                return kind(spec.dataset_config, NO_RAW_DATA)
    return None


def mapped_dataset(
    handler: Any, share: Share, batch_size: int | None, shuffle: int | None, seed: int | None
) -> tf.data.Dataset:
    """Return the dataset that the handler makes of the files, then shuffled and batched.

    A mapper may shuffle, so each worker gets whole files, and some workers one more than others.
    Raises UsageError if there are fewer files than workers, DscacheError if the mapper fails.
    """
    files = [*share.files, *share.shared[share.index :: share.count]]
    if not files and share.count > 1:
        raise UsageError(
            f"worker {share.index} of {share.count} has nothing to read: "
            f"{type(handler).__name__}.tf_records_mapper takes whole files, and there are "
            f"{len(share.shared)}; tfdata(handler=False) divides the examples instead"
        )
    if shuffle is not None:
        random.Random(seed).shuffle(files)
    examples = _call_mapper(handler, files)
    if shuffle is not None:
        examples = examples.shuffle(shuffle, seed=seed)
    return examples if batch_size is None else examples.batch(batch_size)


def _call_mapper(handler: Any, files: list[str]) -> tf.data.Dataset:
    source = inspect.getsourcefile(type(handler))
    with _as_dscache_error(f"tf_records_mapper of {type(handler).__name__} ({source})"):
        return handler.tf_records_mapper(files)


@contextmanager
def _as_dscache_error(subject: str) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError:
        raise  # TensorFlow itself: the caller explains
    except (HandlerError, AttributeError, ImportError, OSError, TypeError, ValueError) as error:
        raise DscacheError(
            f"{subject} failed: {type(error).__name__}: {error}; tfdata(handler=False) avoids it"
        ) from error
