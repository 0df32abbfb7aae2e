"""Interrupted runs are taken up unasked, without end and without haste."""

import asyncio
from contextlib import suppress
from itertools import pairwise

import pytest

from services.errors import UnavailableError
from services.gateway import resumption
from services.gateway.resumption import Resumption


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resumption, "FIRST_REST_SECONDS", 0.01)
    monkeypatch.setattr(resumption, "LONGEST_REST_SECONDS", 0.08)


async def looked(work: Resumption, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(work.go_on(), seconds)


async def test_a_run_that_is_interrupted_again_and_again_is_taken_up_ever_more_rarely() -> None:
    moments: list[float] = []

    async def take_up(name: str) -> bool:
        moments.append(asyncio.get_running_loop().time())
        return True

    await looked(Resumption(lambda: ["run-1"], take_up, lambda: True), 0.7)
    rests = [later - earlier for earlier, later in pairwise(moments)]
    for rest, least in zip(rests, (0.01, 0.02, 0.04, 0.08, 0.08), strict=False):
        assert rest >= least
    assert len(rests) >= 3


async def test_what_is_at_work_is_looked_at_each_time_and_others_wait_for_room() -> None:
    asked: list[str] = []
    room = 3

    async def take_up(name: str) -> bool:
        asked.append(name)
        return False

    await looked(Resumption(lambda: ["a", "b", "c", "d"], take_up, lambda: len(asked) < room), 0.2)
    assert len(asked) == room


async def test_a_store_that_is_away_does_not_end_the_search() -> None:
    answers = iter([UnavailableError("away"), ValueError("a defect")])
    taken = asyncio.Event()

    def unended() -> list[str]:
        for error in answers:
            raise error
        return ["run-1"]

    async def take_up(name: str) -> bool:
        taken.set()
        return True

    search = asyncio.create_task(Resumption(unended, take_up, lambda: True).go_on())
    await asyncio.wait_for(taken.wait(), 30)
    search.cancel()
