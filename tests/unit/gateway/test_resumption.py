"""Interrupted runs are taken up, without end if nobody asked, and without haste."""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest

from services.errors import StorageFullError, UnavailableError
from services.gateway import resumption
from services.gateway.resumption import Found, Resumption

TakeUp = Callable[[str], Awaitable[Found]]


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resumption, "LOOK_SECONDS", 0.005)
    monkeypatch.setattr(resumption, "FIRST_REST_SECONDS", 0.01)
    monkeypatch.setattr(resumption, "LONGEST_REST_SECONDS", 0.08)


def answering(found: Found | Exception, moments: list[float]) -> TakeUp:
    """What takes runs up notes when, and answers `found`."""

    async def take_up(name: str) -> Found:
        moments.append(asyncio.get_running_loop().time())
        if isinstance(found, Exception):
            raise found
        return found

    return take_up


async def none_followed(work: Resumption, name: str = "run-1") -> None:
    async with asyncio.timeout(30):
        while work.expects(name):
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("found", [Found.INTERRUPTED, StorageFullError("full")])
async def test_a_run_that_is_interrupted_again_and_again_is_taken_up_ever_more_rarely(
    found: Found | Exception,
) -> None:
    moments: list[float] = []
    work = Resumption(lambda: ["run-1"], answering(found, moments), lambda: True)
    work.search()
    async with asyncio.timeout(60):
        while len(moments) < 6:
            await asyncio.sleep(0.01)
    work.stop()

    rests = [later - earlier for earlier, later in pairwise(moments)]
    for rest, least in zip(rests, (0.01, 0.02, 0.04, 0.08, 0.08), strict=False):
        assert rest >= 0.9 * least


async def test_a_run_that_cannot_be_taken_up_does_not_keep_others_from_it() -> None:
    names = {f"run-{number}" for number in range(20)}
    refused = {"run-0": StorageFullError("full"), "run-1": ValueError("a defect")}
    taken: set[str] = set()
    all_taken = asyncio.Event()

    async def take_up(name: str) -> Found:
        if name in refused:
            raise refused[name]
        taken.add(name)
        if len(taken) == len(names - refused.keys()):
            all_taken.set()
        return Found.INTERRUPTED

    work = Resumption(lambda: names, take_up, lambda: True)
    work.search()
    await asyncio.wait_for(all_taken.wait(), 30)
    work.stop()


async def test_what_is_at_work_is_looked_at_each_time_and_others_wait_for_room() -> None:
    asked: list[float] = []
    take_up = answering(Found.AT_WORK, asked)
    room = 7
    work = Resumption(lambda: ["a", "b", "c"], take_up, lambda: len(asked) < room)
    work.search()
    async with asyncio.timeout(30):
        while len(asked) < room:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    work.stop()

    assert len(asked) == room


async def test_a_store_that_is_away_does_not_end_the_search() -> None:
    answers = iter([UnavailableError("away"), ValueError("a defect")])
    taken = asyncio.Event()

    def unended() -> list[str]:
        for error in answers:
            raise error
        return ["run-1"]

    async def take_up(name: str) -> Found:
        taken.set()
        return Found.INTERRUPTED

    work = Resumption(unended, take_up, lambda: True)
    work.search()
    await asyncio.wait_for(taken.wait(), 30)
    work.stop()


@pytest.mark.parametrize("last", [Found.INTERRUPTED, Found.ENDED])
async def test_a_run_is_followed_until_it_is_taken_up_or_ends(last: Found) -> None:
    answers = iter([Found.AT_WORK, UnavailableError("away"), Found.AT_WORK, last])

    async def take_up(name: str) -> Found:
        found = next(answers)
        if isinstance(found, Exception):
            raise found
        return found

    work = Resumption(lambda: [], take_up, lambda: False)
    work.follow("run-1")
    await none_followed(work)

    assert next(answers, None) is None


async def test_who_asked_for_a_run_that_cannot_be_taken_up_is_told_so_in_the_end() -> None:
    moments: list[float] = []
    full = answering(StorageFullError("full"), moments)
    work = Resumption(lambda: [], full, lambda: True)
    for attempts in (resumption.ATTEMPTS, 2 * resumption.ATTEMPTS):
        work.follow("run-1")
        await none_followed(work)
        assert len(moments) == attempts


async def test_a_run_that_is_asked_for_while_another_is_followed_is_followed_too() -> None:
    asked: list[str] = []

    async def take_up(name: str) -> Found:
        asked.append(name)
        return Found.ENDED if len(asked) > 8 else Found.AT_WORK

    work = Resumption(lambda: [], take_up, lambda: True)
    work.follow("run-1")
    await asyncio.sleep(0.01)
    work.follow("run-2")
    await none_followed(work)
    await none_followed(work, "run-2")

    assert set(asked) == {"run-1", "run-2"}
