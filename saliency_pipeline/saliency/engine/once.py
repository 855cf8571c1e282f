"""`Once`: a property that is computed the first time it is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

X = TypeVar("X")


class Once(Generic[X]):
    """A property that is computed once. `cached_property` of Python 3.11 holds one lock for all instances meanwhile.

    Threads would wait for one another's passes through the network.
    """

    def __init__(self, compute: Callable[[Any], X]) -> None:
        self.compute = compute

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type) -> X:
        value = instance.__dict__[self.name] = self.compute(instance)
        return value
