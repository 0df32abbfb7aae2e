"""Resumption: interrupted runs are taken up again unasked, so that a night's work goes on."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable

import structlog

from services.errors import DemiurgeError

FIRST_REST_SECONDS = 1.0
LONGEST_REST_SECONDS = 300.0
# Looking for interrupted runs is to be a small part of the gateway's time.
SEARCH_SHARE = 0.1

logger = structlog.get_logger(__name__)


class Resumption:
    """Looks for runs that have not ended, and takes up those that nobody is at work on.

    `unended` names them, blocking; `take_up` resumes one and answers whether it needed that, and
    `has_room` says whether more may be at work. A run that is interrupted again and again, by a
    full disk for one, is taken up ever more rarely.
    """

    def __init__(
        self,
        unended: Callable[[], Iterable[str]],
        take_up: Callable[[str], Awaitable[bool]],
        has_room: Callable[[], bool],
    ) -> None:
        self._unended = unended
        self._take_up = take_up
        self._has_room = has_room
        # When a run may next be taken up (monotonic), and for how long it then rests.
        self._rests: dict[str, tuple[float, float]] = {}

    async def go_on(self) -> None:
        """Does so again and again; to be cancelled."""
        while True:
            begin = time.monotonic()
            try:
                await self._look()
            except DemiurgeError as error:
                logger.warning("interrupted runs wait", error=error.message)
            except Exception:
                logger.exception("interrupted runs wait")
            took = time.monotonic() - begin
            await asyncio.sleep(max(FIRST_REST_SECONDS, took / SEARCH_SHARE))

    async def _look(self) -> None:
        if not self._has_room():
            return
        names = await asyncio.to_thread(lambda: list(self._unended()))
        # Two gateways that start together take up different ones first.
        random.shuffle(names)
        for name in names:
            if not self._has_room():
                return
            due, rest = self._rests.get(name, (0.0, FIRST_REST_SECONDS))
            if time.monotonic() >= due and await self._take_up(name):
                self._rests[name] = (time.monotonic() + rest, min(2 * rest, LONGEST_REST_SECONDS))
