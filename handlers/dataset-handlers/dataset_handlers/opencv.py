"""OpenCV, imported on first use (which takes 0.2 s) and without threads."""

from __future__ import annotations

from functools import cache
from typing import Any


@cache
def opencv() -> Any:
    """The module ``cv2``.

    Its threads are disabled: builders run one process per core, and a fork while another thread
    holds a lock makes the child wait for ever.
    """
    import cv2

    cv2.setNumThreads(0)
    return cv2
