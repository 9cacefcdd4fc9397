"""Open image files with Pillow, whatever is in them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    import os

    from PIL.Image import Image as PilImage

# Besides OSError and ValueError, this is what Pillow raises about damaged files; tests/fuzz looks.
_DAMAGED = (
    SyntaxError, TypeError, LookupError, OverflowError, EOFError, struct.error, zlib.error,
)  # fmt: skip


@contextmanager
def opened(file: str | os.PathLike[str] | IO[bytes], **options: Any) -> Iterator[PilImage]:
    """Open an image for the block, which may decode it.

    Args:
        file: the path, or the open file.
        options: those of `PIL.Image.open`.

    Raises:
        OSError, ValueError: the file is missing, damaged, not an image, or larger than Pillow's
            limit of 179 million pixels.
    """
    from PIL import Image

    try:
        with Image.open(file, **options) as image:
            yield image
    except (*_DAMAGED, Image.DecompressionBombError) as error:
        raise OSError(f"not a readable image: {error}") from error
