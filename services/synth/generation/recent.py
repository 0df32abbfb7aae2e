"""The things used last, by key: what memory on a device is kept for."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

ThingT = TypeVar("ThingT")


class Recent(Generic[ThingT]):
    """At most `capacity` things; for one thread alone."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._things: OrderedDict[Hashable, ThingT] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], ThingT]) -> ThingT:
        """That of `key`, made if it is not there; the one longest unused then makes room."""
        if key not in self._things:
            self._things[key] = make()
            while len(self._things) > self._capacity:
                self._things.popitem(last=False)
        self._things.move_to_end(key)
        return self._things[key]
