import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest

from services.errors import NotFoundError, UnavailableError
from services.gateway import patience
from services.gateway.patience import Patience, in_thread


def away(times: int) -> Callable[[], Awaitable[int]]:
    """Answers how often it was tried, once it was away so many times."""
    tried = 0

    async def attempt() -> int:
        nonlocal tried
        tried += 1
        if tried <= times:
            raise UnavailableError("nobody there", culprit="host")
        return tried

    return attempt


async def test_who_comes_back_is_answered_by() -> None:
    assert await Patience(60).ride_out(away(3), "the store") == 4


async def test_who_stays_away_is_named_with_what_was_last_heard() -> None:
    with pytest.raises(UnavailableError, match=r"the store was away for \d+ s .*nobody there"):
        await Patience(0.3).ride_out(away(1000), "the store")


async def test_without_patience_the_first_absence_is_the_last() -> None:
    with pytest.raises(UnavailableError):
        await Patience(0).ride_out(away(1), "the store")


async def test_other_errors_are_not_waited_for() -> None:
    async def attempt() -> int:
        raise NotFoundError("gone")

    with pytest.raises(NotFoundError):
        await Patience(60).ride_out(attempt, "the store")


async def test_time_at_work_before_a_break_is_no_absence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "AT_WORK_SECONDS", 0.05)
    attempt = away(3)

    async def slow() -> int:
        await asyncio.sleep(0.2)
        return await attempt()

    assert await Patience(0.55).ride_out(slow, "the store") == 4


async def test_a_cancel_waits_for_what_a_thread_has_begun() -> None:
    begun, done = threading.Event(), threading.Event()

    def write() -> None:
        begun.set()
        threading.Event().wait(0.1)
        done.set()

    work = asyncio.create_task(in_thread(write))
    assert await asyncio.to_thread(begun.wait, 10)
    work.cancel()
    await asyncio.wait([work])

    assert work.cancelled()
    assert done.is_set()


async def test_a_cancel_does_not_wait_for_a_thread_that_hangs() -> None:
    begun, may_end = threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        may_end.wait(60)
        raise NotFoundError("nobody hears this")

    work = asyncio.create_task(in_thread(hang))
    assert await asyncio.to_thread(begun.wait, 10)
    work.cancel()
    await asyncio.wait([work], timeout=30)
    may_end.set()

    assert work.cancelled()
