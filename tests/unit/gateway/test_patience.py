import asyncio
import threading
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from services.errors import NotFoundError, UnavailableError
from services.gateway import patience
from services.gateway.patience import Patience, in_thread
from services.gateway.settings import GatewaySettings
from services.query.settings import QuerySettings

Heard = Callable[[], None]


class Clock:
    """The time that those who wait look at: it goes on while they wait, or when told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        loop = SimpleNamespace(time=lambda: self.now)
        stand_in = SimpleNamespace(get_running_loop=lambda: loop, sleep=self.sleep)
        monkeypatch.setattr(patience, "asyncio", stand_in)

    async def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


class Service:
    """Takes so many seconds for each attempt; breaks off, or answers once nothing is left to do."""

    def __init__(self, clock: Clock, *attempts: float, busy: float = 0.0) -> None:
        self._clock = clock
        self._left = list(attempts)
        self._busy = busy
        self.tried = 0

    async def __call__(self, heard: Heard) -> int:
        self.tried += 1
        if self._busy:
            self._clock.now += self._busy
            heard()
        if not self._left:
            return self.tried
        self._clock.now += self._left.pop(0)
        raise UnavailableError("nobody there", culprit="host")


async def test_who_comes_back_is_answered_by(clock: Clock) -> None:
    assert await Patience(60).ride_out(Service(clock, 0, 0, 0), "the store") == 4


async def test_who_stays_away_is_named_with_what_was_last_heard(clock: Clock) -> None:
    with pytest.raises(UnavailableError, match=r"the store was away for 120 s .*nobody there"):
        await Patience(120).ride_out(Service(clock, *[0] * 1000), "the store")
    assert clock.now == 120


async def test_without_patience_the_first_absence_is_the_last(clock: Clock) -> None:
    with pytest.raises(UnavailableError):
        await Patience(0).ride_out(Service(clock, 600), "the store")


async def test_other_errors_are_not_waited_for() -> None:
    async def attempt(_: Heard) -> int:
        raise NotFoundError("gone")

    with pytest.raises(NotFoundError):
        await Patience(60).ride_out(attempt, "the store")


@pytest.mark.parametrize("hangs", [1.0, 10.0, QuerySettings().timeout_seconds + 0.01, 40.0, 75.0])
async def test_who_hangs_is_given_up_after_the_same_time_as_who_is_gone(
    clock: Clock, hangs: float
) -> None:
    limit = GatewaySettings().patience_seconds
    with pytest.raises(UnavailableError) as caught:
        await Patience(limit).ride_out(Service(clock, *[hangs] * 1000), "the query service")

    # What the first attempt took may have been work; the last may begin just before the end.
    assert limit <= clock.now - hangs <= limit + hangs
    assert f"was away for {clock.now - hangs:.0f} s" in caught.value.message


async def test_who_breaks_off_after_minutes_at_work_may_take_its_time_to_come_back(
    clock: Clock,
) -> None:
    back_in_a_minute = [2.0] * 12
    service = Service(clock, 600, *back_in_a_minute, 600, *back_in_a_minute)

    assert await Patience(120).ride_out(service, "the synth service") == 27


async def test_who_breaks_off_again_and_again_is_not_asked_for_ever(clock: Clock) -> None:
    service = Service(clock, *[600] * 1000)
    with pytest.raises(UnavailableError, match="the synth service broke off 4 times"):
        await Patience(120).ride_out(service, "the synth service")
    assert service.tried == 4


async def test_a_busy_service_is_there(clock: Clock) -> None:
    service = Service(clock, 1, 0, 0, busy=100)

    assert await Patience(120).ride_out(service, "the synth service") == 4


async def test_a_service_that_is_broken_by_what_it_is_asked_is_given_up_though_it_was_busy(
    clock: Clock,
) -> None:
    service = Service(clock, *[60] * 1000, busy=10)
    with pytest.raises(UnavailableError, match="the synth service broke off 4 times"):
        await Patience(120).ride_out(service, "the synth service")


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
