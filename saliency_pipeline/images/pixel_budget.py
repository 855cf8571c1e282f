"""Budget of pixels that the threads of a process decode at once, to bound memory."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import threading
from collections import deque
from collections.abc import Callable, Iterator


class PixelBudget:
    """A number of pixels that threads share; requests beyond it wait in order.

    A single request larger than the budget is granted once it is alone.

    Example:
        >>> budget = PixelBudget(100)
        >>> with budget.hold(60), budget.hold(40):
        ...     budget.free
        0
        >>> with budget.hold(5_000):
        ...     budget.free
        0
        >>> budget.free
        100
    """

    def __init__(self, pixels: int) -> None:
        self.pixels = pixels
        self.free = pixels
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()

    @contextlib.contextmanager
    def hold(self, pixels: int) -> Iterator[None]:
        """Take pixels out of the budget for the duration of a `with` block, after waiting for them.

        Must not be nested: two threads could deadlock.
        """
        pixels = min(pixels, self.pixels)
        with self._changed:
            # a queue, so that small images do not starve a large one
            ticket = object()
            self._waiting.append(ticket)
            try:
                self._changed.wait_for(lambda: self._waiting[0] is ticket and self.free >= pixels)
                self.free -= pixels
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self.free += pixels
                self._changed.notify_all()


DECODING = PixelBudget(128_000_000)
"""Budget of decoding: the pixels of the largest image that is accepted by default."""

LARGE = 16_000_000
"""Number of pixels from which on an image's memory is returned to the system."""


def return_free_memory() -> None:
    """Return all free memory of this process to the system, if the C library is glibc.

    glibc keeps freed memory per thread, without a bound after `memory.keep_large_blocks`: images that are decoded one
    after the other in many threads would take as much as all of them at once.
    """
    if trim := _malloc_trim():
        trim(0)


@functools.cache
def _malloc_trim() -> Callable[[int], int] | None:
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return None
    return trim
