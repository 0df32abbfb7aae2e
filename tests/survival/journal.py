"""Every point at which a run writes, counted as it is passed; at one of them, the process dies.

Nothing in the product knows of this: the object store is wrapped, and so are the two libraries
below the embedded index, Qdrant Edge and SQLite.
"""

import http.client
import json
import os
import re
import signal
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Written again and again while a run goes on, and gone when it has ended: when is a matter of time.
TIMED = re.compile(r"runs/[^/]+/(?:live|cancel)[^/]*")
CHANGES = ("INSERT", "UPDATE", "DELETE")
BEFORE, WITHIN, AFTER = "before", "within", "after"


@dataclass(frozen=True)
class Point:
    """One write: what kind, and of what."""

    kind: str
    key: str = ""


@dataclass(frozen=True)
class Death:
    """When to die: before, within or after the write of that number."""

    number: int
    phase: str

    def __str__(self) -> str:
        return f"{self.phase} write {self.number}"


class Journal:
    """Notes each write in a file that outlives the process, and kills it at `death`."""

    def __init__(self, path: Path, death: Death | None = None) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._death = death
        self._lock = threading.Lock()
        self._count = 0
        self._current = threading.local()

    @contextmanager
    def writing(self, kind: str, key: str = "") -> Iterator[None]:
        """One write, done by the block."""
        with self._lock:
            number, self._count = self._count, self._count + 1
        self._pass(number, BEFORE, kind, key)
        self._current.write = number, kind, key
        try:
            yield
        finally:
            del self._current.write
        self._pass(number, AFTER, kind, key)

    def halfway(self) -> None:
        """To be called in the midst of a write."""
        write = getattr(self._current, "write", None)
        if write and self._death == Death(write[0], WITHIN):
            self._pass(write[0], WITHIN, *write[1:])

    def _pass(self, number: int, phase: str, kind: str, key: str) -> None:
        entry = {"number": number, "phase": phase, "kind": kind, "key": key}
        os.write(self._file, json.dumps(entry).encode() + b"\n")
        if self._death == Death(number, phase):
            os.kill(os.getpid(), signal.SIGKILL)


def entries(path: Path) -> list[tuple[Death, Point]]:
    """What a journal says, in order."""
    found = []
    for line in path.read_text().splitlines():
        entry = json.loads(line)
        point = Point(entry["kind"], entry["key"])
        found.append((Death(entry["number"], entry["phase"]), point))
    return found


class WitnessedStore:
    """An object store whose writes are noted; everything else is the store's own."""

    def __init__(self, store: Any, journal: Journal) -> None:
        self._store = store
        self._journal = journal

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if name not in {"put", "put_new", "delete"}:
            return method

        def witnessed(key: str, *arguments: Any, **keywords: Any) -> Any:
            if TIMED.fullmatch(key):
                return method(key, *arguments, **keywords)
            with self._journal.writing(name, key):
                return method(key, *arguments, **keywords)

        return witnessed


def witness_index(journal: Journal) -> None:
    """From here on, shards and databases that are opened have their writes noted."""
    import qdrant_edge  # noqa: PLC0415 - the parent of all children must not have it in use

    engine, connect = qdrant_edge.EdgeShard, sqlite3.connect

    class Shard:
        def __init__(self, shard: Any) -> None:
            self._shard = shard

        @staticmethod
        def create(*arguments: Any) -> "Shard":
            with journal.writing("shard create"):
                return Shard(engine.create(*arguments))

        @staticmethod
        def load(*arguments: Any) -> "Shard":
            return Shard(engine.load(*arguments))

        def __getattr__(self, name: str) -> Any:
            method = getattr(self._shard, name)
            if name not in {"update", "flush", "optimize"}:
                return method

            def witnessed(*arguments: Any) -> Any:
                with journal.writing(f"shard {name}"):
                    return method(*arguments)

            return witnessed

    class Connection(sqlite3.Connection):
        def execute(self, statement: str, *parameters: Any) -> sqlite3.Cursor:
            # Outside of a transaction, a statement is one by itself.
            alone = not self.in_transaction and statement.startswith(CHANGES)
            if not alone and (statement != "COMMIT" or self.total_changes == self._committed):
                return super().execute(statement, *parameters)
            with journal.writing("catalogue commit"):
                answer = super().execute(statement, *parameters)
            self._committed = self.total_changes
            return answer

        _committed = 0

    qdrant_edge.EdgeShard = Shard
    sqlite3.connect = lambda *arguments, **keywords: connect(  # type: ignore[assignment]
        *arguments, **{"factory": Connection, **keywords}
    )


def witness_halves(journal: Journal) -> None:
    """From here on, writes of objects are noted in their midst.

    In a folder, that is when a file is synced that has no name yet; in S3, when the headers of a
    PUT are on their way, but not its body.
    """
    fsync, send = os.fsync, http.client.HTTPConnection.send

    def witnessed_fsync(descriptor: int) -> None:
        journal.halfway()
        fsync(descriptor)

    def witnessed_send(connection: http.client.HTTPConnection, data: Any) -> None:
        send(connection, data)
        if isinstance(data, bytes) and data.startswith(b"PUT "):
            journal.halfway()

    os.fsync = witnessed_fsync
    http.client.HTTPConnection.send = witnessed_send  # type: ignore[method-assign]
