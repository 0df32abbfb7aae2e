"""Interrupted runs are taken up, without end if nobody asked, and without haste."""

import asyncio
from collections.abc import Iterator
from itertools import pairwise

import pytest

from services.errors import StorageFullError, UnavailableError
from services.gateway import resumption
from services.gateway.resumption import Found, Resumption


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resumption, "LOOK_SECONDS", 0.005)
    monkeypatch.setattr(resumption, "FIRST_REST_SECONDS", 0.01)
    monkeypatch.setattr(resumption, "LONGEST_REST_SECONDS", 0.08)


class Attempts:
    """Takes runs up: notes when, answers `found`, and tells once there were `enough`."""

    def __init__(self, found: Found | Exception, enough: int = 1) -> None:
        self.found = found
        self.enough = enough
        self.moments: list[float] = []
        self.done = asyncio.Event()

    async def __call__(self, _: str) -> Found:
        self.moments.append(asyncio.get_running_loop().time())
        if len(self.moments) == self.enough:
            self.done.set()
        if isinstance(self.found, Exception):
            raise self.found
        return self.found

    def has_room(self) -> bool:
        return not self.done.is_set()


async def searched(work: Resumption, enough: asyncio.Event) -> None:
    work.search()
    await asyncio.wait_for(enough.wait(), 60)
    work.stop()


async def followed(work: Resumption) -> None:
    assert work._following
    await asyncio.wait_for(work._following, 60)


@pytest.mark.parametrize("found", [Found.INTERRUPTED, StorageFullError("full")])
async def test_a_run_that_is_interrupted_again_and_again_is_taken_up_ever_more_rarely(
    found: Found | Exception,
) -> None:
    attempts = Attempts(found, enough=6)
    await searched(Resumption(lambda: ["run-1"], attempts, lambda: True), attempts.done)

    rests = [later - earlier for earlier, later in pairwise(attempts.moments)]
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
    await searched(work, all_taken)
    assert taken == names - refused.keys()


async def test_what_is_at_work_is_looked_at_each_time_and_others_wait_for_room() -> None:
    attempts = Attempts(Found.AT_WORK, enough=7)
    work = Resumption(lambda: ["a", "b", "c"], attempts, attempts.has_room)
    work.search()
    await asyncio.wait_for(attempts.done.wait(), 60)
    await asyncio.sleep(0.05)
    work.stop()

    assert len(attempts.moments) == 7


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
    await searched(work, taken)
    assert taken.is_set()
    assert next(answers, None) is None


@pytest.mark.parametrize("last", [Found.INTERRUPTED, Found.ENDED])
async def test_a_run_is_followed_until_it_is_taken_up_or_ends(last: Found) -> None:
    answers: Iterator[Found | Exception] = iter(
        [Found.AT_WORK, UnavailableError("away"), Found.AT_WORK, last]
    )

    async def take_up(name: str) -> Found:
        found = next(answers)
        if isinstance(found, Exception):
            raise found
        return found

    work = Resumption(list, take_up, lambda: False)
    work.follow("run-1")
    await followed(work)

    assert next(answers, None) is None


async def test_who_asked_for_a_run_that_cannot_be_taken_up_is_told_so_in_the_end() -> None:
    attempts = Attempts(StorageFullError("full"))
    work = Resumption(list, attempts, lambda: True)
    for total in (resumption.ATTEMPTS, 2 * resumption.ATTEMPTS):
        work.follow("run-1")
        assert work.expects("run-1")
        await followed(work)
        assert not work.expects("run-1")
        assert len(attempts.moments) == total


async def test_a_run_that_is_asked_for_while_another_is_followed_is_followed_too() -> None:
    asked: list[str] = []

    async def take_up(name: str) -> Found:
        asked.append(name)
        return Found.ENDED if len(asked) > 8 else Found.AT_WORK

    work = Resumption(list, take_up, lambda: True)
    work.follow("run-1")
    await asyncio.sleep(0.01)
    work.follow("run-2")
    await followed(work)

    assert set(asked) == {"run-1", "run-2"}
