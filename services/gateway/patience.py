"""Patience: who is away for a while is waited for; who stays away is given up by name."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

import structlog

from services.errors import UnavailableError

Answer = TypeVar("Answer")

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0
# An attempt that took longer than any connecting was at work before it broke off.
AT_WORK_SECONDS = 30.0
# What a thread has begun to write is waited for, so that nothing is written after a cancel, but
# not for ever: a store may hang.
GRACE_SECONDS = 0.4

THE_STORE = "the object store"

logger = structlog.get_logger(__name__)


class Patience:
    """How long an absence is ridden out, in seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def ride_out(self, attempt: Callable[[], Awaitable[Answer]], what: str) -> Answer:
        """What `attempt` answers, which is tried again as long as it raises UnavailableError.

        Raises UnavailableError, naming `what` and for how long it was away, once that is longer
        than this patience. Time at work before a break does not count.
        """
        loop = asyncio.get_running_loop()
        absent, pause = 0.0, FIRST_PAUSE_SECONDS
        while True:
            begin = loop.time()
            try:
                answer = await attempt()
            except UnavailableError as error:
                took = loop.time() - begin
                absent += took if took < AT_WORK_SECONDS else 0.0
                if absent >= self._seconds:
                    raise UnavailableError(
                        f"{what} was away for {absent:.0f} s (DEMIURGE_GATEWAY_PATIENCE_SECONDS): "
                        f"{error.message}; see that it runs, and can be reached",
                        culprit=error.culprit or what,
                    ) from error
                logger.warning("waiting", for_=what, seconds=round(absent, 1), error=error.message)
            else:
                if absent:
                    logger.info("back", what=what, seconds=round(absent, 1))
                return answer
            # Jitter keeps callers that were refused together from coming back together.
            wait = min(random.uniform(pause / 2, pause), self._seconds - absent)  # noqa: S311 - no secret
            await asyncio.sleep(wait)
            absent += wait
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    async def stored(self, work: Callable[[], Answer]) -> Answer:
        """`work` with the object store, in a thread, patiently."""
        return await self.ride_out(lambda: in_thread(work), THE_STORE)


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
