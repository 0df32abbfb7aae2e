"""Runs as they lie in the store: request.json first, a marker as each stage ends, run.json last."""

from collections.abc import Iterator
from typing import TypeVar

from demiurge.gateway.v1.gateway_service_pb2 import Run
from demiurge.gateway.v1.run_record_pb2 import RunRecord
from google.protobuf import json_format
from google.protobuf.message import Message

from services.errors import CorruptObjectError, NotFoundError
from services.runtime.object_store.port import ObjectStore

Record = TypeVar("Record", bound=Message)

RUNS = "runs/"
REQUEST = "request.json"
END = "run.json"


class RunStore:
    """Reads and writes the records of runs; blocking."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def begin(self, record: RunRecord) -> RunRecord:
        """Writes what was asked; from here on the run exists, and has not ended.

        Returns the record of the first time, where the same was asked before.
        """
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
            raise NotFoundError(
                f"there is no run {run_id!r}: ListRuns, or `demiurge runs`, names them",
                culprit=run_id,
            ) from error

    def save_marker(self, run_id: str, number: int, output: Message) -> None:
        """Writes what stage `number` left."""
        self._write(self._marker_key(run_id, number), output)

    def marker(self, run_id: str, number: int, output: Record) -> Record | None:
        """What stage `number` left, read into `output`; None if it has not ended."""
        try:
            return self._read(self._marker_key(run_id, number), output)
        except NotFoundError:
            return None

    def save_end(self, run: Run) -> None:
        """Writes how the run ended."""
        self._write(f"{RUNS}{run.id}/{END}", run)

    def end(self, run_id: str) -> Run | None:
        """How the run ended; None if it has not."""
        try:
            return self._read(f"{RUNS}{run_id}/{END}", Run())
        except NotFoundError:
            return None

    def ids(self) -> Iterator[str]:
        """The ids of all runs."""
        for key in self._store.keys(RUNS):
            run_id, _, name = key.removeprefix(RUNS).partition("/")
            if name == REQUEST:
                yield run_id

    @staticmethod
    def _marker_key(run_id: str, number: int) -> str:
        return f"{RUNS}{run_id}/stages/{number}.json"

    def _write(self, key: str, message: Message) -> None:
        text = json_format.MessageToJson(message, preserving_proto_field_name=True)
        self._store.put(key, text.encode())

    def _read(self, key: str, message: Record) -> Record:
        try:
            return json_format.Parse(self._store.read(key), message)
        except (json_format.ParseError, UnicodeDecodeError) as error:
            raise CorruptObjectError(
                f"{key} is damaged: {error}; delete it, and its part of the run is done again",
                culprit=key,
            ) from error
