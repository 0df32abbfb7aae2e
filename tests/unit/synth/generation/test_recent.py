import gc
import weakref

import pytest

from services.synth.generation.recent import Recent


class Thing:
    """What a weak reference can watch."""


def test_only_those_used_last_are_kept() -> None:
    made: list[str] = []
    recent: Recent[str] = Recent(2)

    def get(key: str) -> str:
        def make() -> str:
            made.append(key)
            return key.upper()

        return recent.get(key, make)

    assert [get(key) for key in ("a", "b", "a", "c", "a", "b")] == ["A", "B", "A", "C", "A", "B"]
    assert made == ["a", "b", "c", "b"]


def test_what_made_room_is_let_go() -> None:
    recent: Recent[Thing] = Recent(2)
    watched = [weakref.ref(recent.get(key, Thing)) for key in range(3)]
    gc.collect()
    assert [reference() is None for reference in watched] == [True, False, False]


def test_what_cannot_be_made_costs_nothing_that_is_there() -> None:
    recent: Recent[object] = Recent(1)
    first = recent.get("a", object)
    with pytest.raises(ZeroDivisionError):
        recent.get("b", lambda: 1 / 0)
    assert recent.get("a", object) is first
