"""Runs as they lie in the store: request.json first, a marker as each stage ends, run.json last.

Beside them live.json, as long as a gateway is at work, and cancel.json, from CancelRun until the
run is created again.
"""

from collections.abc import Iterator
from contextlib import suppress
from typing import TypeVar

from demiurge.gateway.v1.gateway_service_pb2 import Run, State
from demiurge.gateway.v1.run_record_pb2 import LiveRun, RunRecord
from google.protobuf import json_format
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from services.errors import CorruptObjectError, NotFoundError, StorageFullError
from services.runtime.object_store.port import ObjectStore

Record = TypeVar("Record", bound=Message)

RUNS = "runs/"
RENDERS = "renders/"
REQUEST = "request.json"
END = "run.json"
LIVE = "live.json"
CANCEL = "cancel.json"


def now() -> Timestamp:
    """The time as a message."""
    timestamp = Timestamp()
    timestamp.GetCurrentTime()
    return timestamp


class RunStore:
    """Reads and writes the records of runs; blocking."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def begin(self, record: RunRecord) -> RunRecord:
        """Writes what was asked; from here on the run exists, and has not ended.

        Returns the record of the first time, where the same was asked before.
        """
        self._store.delete(f"{RUNS}{record.id}/{CANCEL}")
        self._store.delete(f"{RUNS}{record.id}/{END}")
        try:
            return self.request(record.id)
        except (NotFoundError, CorruptObjectError):
            self._write(f"{RUNS}{record.id}/{REQUEST}", record)
            return record

    def request(self, run_id: str) -> RunRecord:
        """What was asked; NotFoundError, naming the run, if there is none."""
        try:
            return self._read(f"{RUNS}{run_id}/{REQUEST}", RunRecord())
        except NotFoundError as error:
            raise _unknown(run_id) from error

    def save_marker(self, run_id: str, number: int, output: Message) -> None:
        """Writes what stage `number` left."""
        self._write(self._marker_key(run_id, number), output)

    def marker(self, run_id: str, number: int, output: Record) -> Record | None:
        """What stage `number` left, read into `output`; None if it has not ended.

        Raises CorruptObjectError, naming the marker, if it is damaged.
        """
        try:
            return self._read(self._marker_key(run_id, number), output)
        except NotFoundError:
            return None

    def save_end(self, run: Run) -> Run:
        """Writes how the run ended; returns how it did.

        A success is not taken back: another gateway that was at work on it, too, has the piece.
        """
        if run.state != State.STATE_SUCCEEDED:
            with suppress(CorruptObjectError):
                recorded = self.end(run.id)
                if recorded and recorded.state == State.STATE_SUCCEEDED:
                    return recorded
        self._write(f"{RUNS}{run.id}/{END}", run)
        return run

    def end(self, run_id: str) -> Run | None:
        """How the run ended; None if it has not."""
        try:
            return self._read(f"{RUNS}{run_id}/{END}", Run())
        except NotFoundError:
            return None

    def save_live(self, live: LiveRun) -> None:
        """Writes how the run stands."""
        self._write(f"{RUNS}{live.run.id}/{LIVE}", live)

    def live(self, run_id: str) -> LiveRun:
        """How the run stands; NotFoundError if no gateway says so."""
        return self._read(f"{RUNS}{run_id}/{LIVE}", LiveRun())

    def delete_live(self, run_id: str) -> None:
        """No gateway is at work on it any more."""
        self._store.delete(f"{RUNS}{run_id}/{LIVE}")

    def ask_to_cancel(self, run_id: str) -> None:
        """Whichever gateway is at work on it is to stop, and none is to take it up by itself."""
        self._store.put(f"{RUNS}{run_id}/{CANCEL}", b"{}")

    def asked_to_cancel(self, run_id: str) -> bool:
        """Whether CancelRun came after it was last created."""
        return self._store.exists(f"{RUNS}{run_id}/{CANCEL}")

    def delete(self, run_id: str) -> None:
        """Removes the run with its piece; NotFoundError, naming it, if nothing is there.

        Wherever this breaks off, the run is known to be cancelled, and can be deleted. A full store
        cannot note that, and is still to be relieved.
        """
        keys = [key for root in (RENDERS, RUNS) for key in self._store.keys(f"{root}{run_id}/")]
        if not keys:
            raise _unknown(run_id)
        with suppress(StorageFullError):
            self.ask_to_cancel(run_id)
        end, *last = (f"{RUNS}{run_id}/{name}" for name in (END, REQUEST, CANCEL))
        for key in [end, *(key for key in keys if key not in last), *last]:
            self._store.delete(key)

    def ids(self) -> Iterator[str]:
        """The ids of all runs."""
        return (run_id for run_id, names in self._names() if REQUEST in names)

    def unended(self) -> Iterator[str]:
        """The ids of the runs that nobody has seen the end of, and nobody cancelled."""
        for run_id, names in self._names():
            if REQUEST in names and not {END, CANCEL} & names:
                yield run_id

    def create_time(self, run_id: str) -> Timestamp:
        """When the run was created first."""
        return (self.end(run_id) or self.request(run_id)).create_time

    def _names(self) -> Iterator[tuple[str, set[str]]]:
        """Each run's id, and what lies directly in its folder."""
        current, names = "", set[str]()
        for key in self._store.keys(RUNS):
            run_id, _, name = key.removeprefix(RUNS).partition("/")
            if run_id != current:
                yield current, names
                current, names = run_id, set()
            names.add(name)
        yield current, names

    @staticmethod
    def _marker_key(run_id: str, number: int) -> str:
        return f"{RUNS}{run_id}/stages/{number}.json"

    def _write(self, key: str, message: Message) -> None:
        text = json_format.MessageToJson(message, preserving_proto_field_name=True)
        self._store.put(key, text.encode())

    def _read(self, key: str, message: Record) -> Record:
        try:
            return json_format.Parse(self._store.read(key), message)
        except (json_format.ParseError, UnicodeDecodeError, CorruptObjectError) as error:
            raise CorruptObjectError(
                f"{key} is damaged ({error}): create the run again, and it is made anew",
                culprit=key,
            ) from error


def _unknown(run_id: str) -> NotFoundError:
    return NotFoundError(
        f"there is no run {run_id!r}: ListRuns, or `demiurge runs`, names them", culprit=run_id
    )
