"""Patience: who is away for a while is waited for; who stays away is given up by name."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

import grpc
import structlog

from services.errors import UnavailableError
from services.runtime.pauses import pauses

Answer = TypeVar("Answer")

# Whatever hangs behind a service is given up by it long before; who took longer was at work.
AT_WORK_SECONDS = 120.0
# What is away anew so often is broken by what it is asked.
ABSENCES = 3
# What a thread has begun to write is waited for, so that nothing is written after a cancel, but
# not for ever: a store may hang.
GRACE_SECONDS = 0.4

THE_STORE = "the object store"

logger = structlog.get_logger(__name__)


class Patience:
    """How long an absence is ridden out, in seconds.

    An absence begins when the first attempt breaks off, lasts, on the clock on the wall, whatever
    the next attempts take, and ends with any answer: also that the service is busy. An attempt of
    AT_WORK_SECONDS or more was at work, and begins another absence when it breaks off. ABSENCES of
    them are ridden out, then what is asked for is taken to be what breaks the service.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def ride_out(
        self, attempt: Callable[[Callable[[], None]], Awaitable[Answer]], what: str
    ) -> Answer:
        """What `attempt` answers, which is tried again as long as it raises UnavailableError.

        `attempt` is given a function to call whenever it hears of `what`, though it has no answer
        yet. Raises UnavailableError, naming `what` and for how long it was away, once that is
        longer than this patience, or how often, if it was too often.
        """
        clock = asyncio.get_running_loop().time
        away_since: float | None = None
        begin, absences, waits = clock(), 0, pauses()

        def heard() -> None:
            nonlocal away_since, begin
            away_since, begin = None, clock()

        while True:
            begin = clock()
            try:
                answer = await attempt(heard)
            except UnavailableError as error:
                broke = clock()
                if away_since is None or broke - begin >= AT_WORK_SECONDS:
                    away_since, absences, waits = broke, absences + 1, pauses()
                away = broke - away_since
                if away >= self._seconds or absences > ABSENCES:
                    raise UnavailableError(
                        _gave_up(what, away, absences, error.message),
                        culprit=error.culprit or what,
                    ) from error
                log = logger.info if _cut_off(error) else logger.warning
                log("waiting", awaited=what, seconds=round(away, 1), error=error.message)
                await asyncio.sleep(min(next(waits), self._seconds - away))
            else:
                if absences:
                    logger.info("back", what=what)
                return answer

    async def stored(self, work: Callable[[], Answer]) -> Answer:
        """`work` with the object store, in a thread, patiently."""
        return await self.ride_out(lambda _: in_thread(work), THE_STORE)


def _cut_off(error: UnavailableError) -> bool:
    """Whether the other side stops, and told so itself: often that of one's own process."""
    cause = error.__cause__
    return isinstance(cause, grpc.aio.AioRpcError) and cause.code() is grpc.StatusCode.CANCELLED


def _gave_up(what: str, away: float, absences: int, last_heard: str) -> str:
    if absences > ABSENCES:
        return (
            f"{what} broke off {absences} times while it was asked for one thing: {last_heard}; "
            "see in its log, and in that of its host, what ends it"
        )
    return (
        f"{what} was away for {away:.0f} s (DEMIURGE_GATEWAY_PATIENCE_SECONDS): {last_heard}; see "
        "that it runs, and can be reached"
    )


async def in_thread(work: Callable[[], Answer]) -> Answer:
    """What `work` answers, in a thread; if this is cancelled, the thread may finish first."""
    thread = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(thread)
    except asyncio.CancelledError:
        thread.add_done_callback(_heard)
        await asyncio.wait([thread], timeout=GRACE_SECONDS)
        raise


def _heard(thread: "asyncio.Future[Answer]") -> None:
    """Keeps asyncio from complaining of an error that nobody waits for any more."""
    with suppress(asyncio.CancelledError):
        thread.exception()
