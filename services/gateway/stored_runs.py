"""Runs as the store shows them: ended, at work at some gateway, cancelled, or interrupted."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import structlog
from demiurge.gateway.v1.gateway_service_pb2 import Run, State

from services.errors import CorruptObjectError, InvalidInputError, NotFoundError
from services.gateway.ends import fail, interruption, stop
from services.gateway.live import LiveRuns
from services.gateway.pipeline import new_run
from services.gateway.run_store import RunStore

# A store far away answers many questions in the time of one.
READERS = 8

logger = structlog.get_logger(__name__)

Place = tuple[int, str]
"""Where a run stands in lists: when it was created, in nanoseconds, and its id."""


class StoredRuns:
    """What can be known of runs without being at work on them; blocking."""

    def __init__(self, records: RunStore, live: LiveRuns) -> None:
        self._records = records
        self._live = live
        # By the first look at a run; a list of thousands reads only those that it shows.
        self._places: dict[str, Place] = {}

    def run(self, name: str) -> Run:
        """The run as it stands; NotFoundError, naming it, if there is none."""
        # It may end, and then is no longer at work, between the first look and the second.
        found = self._records.end(name) or self._live.at_work(name) or self._records.end(name)
        if found is not None:
            return found
        run = new_run(self._records.request(name))
        if self._records.asked_to_cancel(name):
            stop(run, State.STATE_CANCELLED)
        else:
            fail(run, interruption())
        return run

    def found(self, name: str) -> Run | None:
        """As `run`; None if there is none, or its record is damaged and has to be made again."""
        try:
            return self.run(name)
        except NotFoundError:
            return None
        except CorruptObjectError as error:
            logger.warning("run begins anew", run_id=name, error=error.message)
            return None

    def page(self, token: str, size: int) -> tuple[list[Run], str]:
        """Runs, newest first, from `token` on, and the token to go on from.

        Damaged ones are logged and left out. Raises InvalidInputError if `token` is none.
        """
        after = _place_of(token) if token else None
        with ThreadPoolExecutor(READERS) as readers:
            places = sorted(self._found_places(readers), reverse=True)
            rest = [place for place in places if after is None or place < after]
            runs = list(readers.map(self._shown, (name for _, name in rest[:size])))
        shown = [run for run in runs if run is not None]
        return shown, _token_of(rest[size - 1]) if len(rest) > size else ""

    def _found_places(self, readers: ThreadPoolExecutor) -> Iterable[Place]:
        ids = list(self._records.ids())
        new = [name for name in ids if name not in self._places]
        places = dict(self._places)
        places.update((place[1], place) for place in readers.map(self._place, new) if place)
        # Of those that were deleted nothing is kept.
        self._places = {name: places[name] for name in ids if name in places}
        return self._places.values()

    def _place(self, name: str) -> Place | None:
        try:
            return self._records.create_time(name).ToNanoseconds(), name
        except (NotFoundError, CorruptObjectError) as error:
            logger.warning("run left out", run_id=name, error=error.message)
            return None

    def _shown(self, name: str) -> Run | None:
        try:
            return self.run(name)
        except (NotFoundError, CorruptObjectError) as error:
            logger.warning("run left out", run_id=name, error=error.message)
            return None


def _token_of(place: Place) -> str:
    return f"{place[0]}:{place[1]}"


def _place_of(token: str) -> Place:
    time, _, name = token.partition(":")
    if not time.isascii() or not time.isdecimal():
        raise InvalidInputError(f"{token!r} is no page token", culprit="page_token")
    return int(time), name
