"""Fetching ahead: shards come into the cache in the order in which an epoch needs them, while others are being read."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.storage.cache import CachedObject, ShardCache
from saliency_pipeline.storage.mirror import Mirror

THREADS = 4
"""Shards that are fetched at a time."""


class Prefetch:
    """Fetches the shards of coming steps, as far ahead as the cache holds them together with those of the current one.

    A fetch that fails is left to the reader, which repeats it and raises its error. Nothing is fetched for a step whose
    shards alone exceed the cache.

    Args:
        mirror: the folder of the shards.
        steps: the shards of every step, in order; a shard may be needed by any number of steps.
    """

    def __init__(self, mirror: Mirror, steps: Sequence[Sequence[CachedObject]]) -> None:
        self._mirror, self._steps = mirror, steps
        # room for one that another process fetches, or that is read longer
        largest = max((each.bytes for step in steps for each in step), default=0)
        self._limit = ShardCache().limit() - largest
        self._step, self._closed = 0, False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="prefetch", daemon=True)
        self._thread.start()

    def reached(self, step: int) -> None:
        """Tell that a step is being read, and none before it will be any more."""
        with self._changed:
            self._step = step
            self._changed.notify()

    def close(self) -> None:
        """End; what is being fetched is completed."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        window: Counter[CachedObject] = Counter()
        total, first = 0, 0
        fetches: dict[CachedObject, Future[None]] = {}
        with ThreadPoolExecutor(THREADS, "fetch") as pool:
            for number, step in enumerate(self._steps):
                # others are there since an earlier step
                entering = [each for each in step if not window[each]]
                total += sum(each.bytes for each in entering)
                window.update(step)
                while True:
                    with self._changed:
                        current, closed = self._step, self._closed
                    if closed:
                        for fetch in fetches.values():
                            fetch.cancel()
                        return
                    while first < min(current, number):
                        for each in self._steps[first]:
                            window[each] -= 1
                            total -= each.bytes if not window[each] else 0
                        first += 1
                    if total <= self._limit or number <= current:
                        break
                    with self._changed:
                        if self._step == current and not self._closed:
                            self._changed.wait()
                if entering and total <= self._limit:
                    needed = [each for each, count in window.items() if count]
                    fetches |= {each: pool.submit(self._fetch, each, needed) for each in entering}

    def _fetch(self, wanted: CachedObject, needed: Sequence[CachedObject]) -> None:
        cache = ShardCache()
        if cache.has(wanted):
            return
        # those that were fetched ahead and wait for their step would otherwise go before those whose step is over
        cache.touch(needed)
        with suppress(SalpipeError, OSError):
            os.close(self._mirror.open_object(wanted))
