"""How many pixels all threads of the process may decode at once: bounds the memory that decoding takes."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import threading
from collections import deque
from collections.abc import Callable, Iterator


class PixelBudget:
    """A number of pixels that threads share. Whoever asks for more than there is waits; first come, first served.

    A single request larger than the budget is granted once nobody else holds any of it: it runs alone.

    Args:
        pixels: the budget, at least 1.

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
        """Take pixels out of the budget for the duration of a `with` block, once there are enough of them.

        A thread that already holds some must not ask for more: two such threads could wait for each other.
        """
        pixels = min(pixels, self.pixels)
        with self._changed:
            # In a queue, since a large image would otherwise wait for as long as small ones keep coming.
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
"""What decoding takes its pixels from: as many as the largest image that is accepted by default has."""

LARGE = 16_000_000
"""Pixels from which on an image's memory is given back to the system, instead of being kept for the next."""


def return_free_memory() -> None:
    """Give the system all memory that this process has free; where the C library is not glibc, nothing is done.

    glibc keeps what a thread has freed for that thread, without a bound once `allocator.keep_large_blocks` has been
    called. Images that are decoded one after the other in many threads would take as much as all of them at once.
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
