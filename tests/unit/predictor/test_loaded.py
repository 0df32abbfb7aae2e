"""Which predictors stay loaded within a limit of memory."""

import gc
import weakref

from services.predictor.loaded import LoadedPredictors
from services.predictor.port import Predictor
from tests.unit.predictor.test_continuation import Repeater


class Sized(Repeater):
    """One that says that it holds so many bytes."""

    def __init__(self, size: int) -> None:
        self._size = size

    @property
    def size_bytes(self) -> int:
        return self._size


class Shelf:
    """Loaded predictors, and how often each was loaded."""

    def __init__(self, limit: int) -> None:
        self.loaded = LoadedPredictors(limit)
        self.log: list[str] = []

    def get(self, name: str, size: int) -> Predictor:
        def load() -> Predictor:
            self.log.append(name)
            return Sized(size)

        return self.loaded.get(name, load)


def test_as_many_stay_as_fit_together() -> None:
    shelf = Shelf(100)
    for _ in range(2):
        for name, size in (("a", 30), ("b", 30), ("c", 40)):
            shelf.get(name, size)
    assert shelf.log == ["a", "b", "c"]


def test_the_one_used_longest_ago_goes_first() -> None:
    shelf = Shelf(100)
    shelf.get("a", 40)
    shelf.get("b", 40)
    first = shelf.get("a", 40)
    shelf.get("c", 40)
    assert shelf.get("a", 40) is first
    shelf.get("b", 40)
    assert shelf.log == ["a", "b", "c", "b"]


def test_one_larger_than_the_limit_is_served_alone() -> None:
    shelf = Shelf(100)
    shelf.get("a", 10)
    large = shelf.get("large", 1000)
    assert shelf.get("large", 1000) is large
    shelf.get("a", 10)
    assert shelf.get("a", 10) is not large
    shelf.get("large", 1000)
    assert shelf.log == ["a", "large", "a", "large"]


def test_room_is_made_before_one_of_known_size_is_loaded() -> None:
    loaded = LoadedPredictors(100)
    first: list[Predictor | None] = [loaded.get("a", lambda: Sized(80))]
    gone = weakref.ref(first[0])
    first.clear()
    seen: list[bool] = []

    def load() -> Predictor:
        gc.collect()
        seen.append(gone() is None)
        return Sized(80)

    loaded.get("b", load, expected_bytes=80)
    assert seen == [True]


def test_one_that_cannot_be_loaded_leaves_no_trace() -> None:
    shelf = Shelf(100)

    def fail() -> Predictor:
        raise ValueError

    for _ in range(2):
        try:
            shelf.loaded.get("a", fail)
        except ValueError:
            shelf.log.append("failed")
    shelf.get("a", 10)
    assert shelf.log == ["failed", "failed", "a"]
