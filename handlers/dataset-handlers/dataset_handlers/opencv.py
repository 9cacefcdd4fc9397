"""OpenCV, imported when a pixel needs it (importing it costs 0.2 s), and without threads."""

from __future__ import annotations

from functools import cache
from typing import Any


@cache
def opencv() -> Any:
    """The module ``cv2``.

    Its threads are switched off: builders run one process per core, and a process that forks
    while another thread holds a lock leaves the child waiting for ever.
    """
    import cv2

    cv2.setNumThreads(0)
    return cv2
