"""Resumption: runs that nobody is at work on any more are taken over, asked or unasked."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from enum import Enum, auto

import structlog

from services.errors import DemiurgeError, UnavailableError

LOOK_SECONDS = 1.0
FIRST_REST_SECONDS = 1.0
LONGEST_REST_SECONDS = 300.0
# Who asked hears of it then, and may ask again; unasked there is no end to it.
ATTEMPTS = 5
# Looking for interrupted runs is to be a small part of the gateway's time.
SEARCH_SHARE = 0.1

logger = structlog.get_logger(__name__)


class Found(Enum):
    """What an attempt to take a run up came upon."""

    AT_WORK = auto()
    ENDED = auto()
    INTERRUPTED = auto()
    """It is taken up."""


class Resumption:
    """Takes up runs that are interrupted: those it is to follow, and, once told to, all others.

    `unended` names all that may be, blocking; `take_up` resumes one if it is interrupted, and
    `has_room` says whether more may be at work unasked. A run that is interrupted again and again,
    by a full disk for one, is taken up ever more rarely, whether that succeeds or not.
    """

    def __init__(
        self,
        unended: Callable[[], Iterable[str]],
        take_up: Callable[[str], Awaitable[Found]],
        has_room: Callable[[], bool],
    ) -> None:
        self._unended = unended
        self._take_up = take_up
        self._has_room = has_room
        self._followed: set[str] = set()
        self._following: asyncio.Task[None] | None = None
        self._searching: asyncio.Task[None] | None = None
        # When a run may next be taken up (monotonic), and how often it was.
        self._rests: dict[str, tuple[float, int]] = {}

    def follow(self, name: str) -> None:
        """Takes this run over, once, if the gateway that is at work on it stops."""
        self._followed.add(name)
        self._rests.pop(name, None)
        if self._following is None or self._following.done():
            self._following = asyncio.create_task(self._follow())

    def search(self) -> None:
        """From now on takes up, unasked, what is interrupted."""
        self._searching = asyncio.create_task(self._search())

    def expects(self, name: str) -> bool:
        """Whether the run will be taken up if it is interrupted."""
        return self._searching is not None or name in self._followed

    def stop(self) -> None:
        """Takes nothing up any more."""
        for task in (self._following, self._searching):
            if task:
                task.cancel()
        self._followed.clear()
        self._searching = None

    async def _follow(self) -> None:
        while self._followed:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                for name in list(self._followed):
                    found = await self._attempt(name)
                    _, attempts = self._rests.get(name, (0.0, 0))
                    if found in {Found.ENDED, Found.INTERRUPTED} or attempts >= ATTEMPTS:
                        self._followed.discard(name)
            except UnavailableError as error:
                logger.warning("followed runs wait", error=error.message)

    async def _search(self) -> None:
        while True:
            begin = time.monotonic()
            try:
                await self._look()
            except DemiurgeError as error:
                logger.warning("interrupted runs wait", error=error.message)
            except Exception:
                logger.exception("interrupted runs wait")
            took = time.monotonic() - begin
            await asyncio.sleep(max(LOOK_SECONDS, took / SEARCH_SHARE))

    async def _look(self) -> None:
        if not self._has_room():
            return
        names = await asyncio.to_thread(lambda: list(self._unended()))
        known = self._followed.union(names)
        self._rests = {name: rest for name, rest in self._rests.items() if name in known}
        # Two gateways that start together take up different ones first.
        random.shuffle(names)
        for name in names:
            if not self._has_room():
                return
            await self._attempt(name)

    async def _attempt(self, name: str) -> Found | None:
        """Takes the run up if it is interrupted; None if it rests, or cannot be taken up.

        Raises UnavailableError: what is away is away for all runs, and no fault of this one.
        """
        due, attempts = rest = self._rests.get(name, (0.0, 0))
        if (moment := time.monotonic()) < due:
            return None
        seconds = min(FIRST_REST_SECONDS * 2 ** min(attempts, 30), LONGEST_REST_SECONDS)
        # Before the attempt, which may fail.
        self._rests[name] = (moment + seconds, attempts + 1)
        try:
            found = await self._take_up(name)
        except UnavailableError:
            self._rests[name] = rest
            raise
        except Exception as error:
            defect = None if isinstance(error, DemiurgeError) else error
            logger.warning("run not taken up", run_id=name, error=str(error), exc_info=defect)
            return None
        if found is Found.AT_WORK:
            self._rests[name] = rest
        elif found is Found.ENDED:
            self._rests.pop(name, None)
        return found
