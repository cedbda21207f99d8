"""Memory that the process has freed and the C library keeps: given back to the system now and then."""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable

#: Share of a run's time that may go into it, in the copy thread.
_SHARE = 0.02
#: Pause between two times at least, in seconds.
_PAUSE = 0.1


class HeapTrim:
    """Gives freed memory back.

    glibc's heap grows with tensors of changing sizes that are freed in another order than they came: by up to 155 MiB
    in a clip of 10,000 frames on a CPU. Where there is no glibc it does nothing.
    """

    def __init__(self) -> None:
        self._trim = _malloc_trim()
        self._next = time.monotonic() + _PAUSE

    def now_and_then(self) -> None:
        """Call it often."""
        began = time.monotonic()
        if self._trim is not None and began > self._next:
            self._trim(0)
            ended = time.monotonic()
            self._next = ended + max(_PAUSE, (ended - began) / _SHARE)


def _malloc_trim() -> Callable[[int], int] | None:
    if sys.platform != "linux":
        return None
    try:
        found: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except AttributeError:
        return None
    return found
