"""The catalogue of an embedded index: which collections, sounds and aliases there are.

One SQLite file, because it is atomic, durable and holds a lock against a second writer.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from threading import RLock

from services.audio.match_table import SourceRef
from services.errors import NotFoundError, UnavailableError
from services.query import refusals
from services.query.index import Collection, CollectionSpec
from services.query.spec_json import spec_from_json, spec_to_json

_SCHEMA = """
CREATE TABLE IF NOT EXISTS collections (
  id TEXT PRIMARY KEY, spec TEXT NOT NULL, create_time TEXT NOT NULL,
  published INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS sources (
  collection TEXT NOT NULL REFERENCES collections ON DELETE CASCADE, number INTEGER NOT NULL,
  key TEXT NOT NULL, sha256 TEXT NOT NULL, size_bytes INTEGER NOT NULL, media_type TEXT NOT NULL,
  frame_count INTEGER NOT NULL, frames_sha256 TEXT NOT NULL,
  PRIMARY KEY (collection, number), UNIQUE (collection, key));
CREATE TABLE IF NOT EXISTS aliases (
  name TEXT PRIMARY KEY, collection TEXT NOT NULL REFERENCES collections ON DELETE CASCADE);
"""


class Catalog:
    """Open by one process at a time; each change is one transaction.

    Raises UnavailableError, naming the folder, if another process has it open.
    """

    def __init__(self, folder: Path) -> None:
        self._lock = RLock()
        # Frames and sounds by collection, so that the sounds there are need not be counted for each
        # that is added. Nobody else has the file open.
        self._totals: dict[str, tuple[int, int]] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(
                folder / "catalog.sqlite", timeout=0, isolation_level=None, check_same_thread=False
            )
        except (OSError, sqlite3.Error) as error:
            raise UnavailableError(
                f"{folder}: the index cannot be kept there: {error}", culprit=str(folder)
            ) from error
        try:
            self._database.execute("PRAGMA foreign_keys = ON")
            self._database.execute("PRAGMA synchronous = FULL")
            # In this mode the lock of the first transaction is kept until the file is closed.
            self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._database.execute("BEGIN EXCLUSIVE")
            self._database.execute("COMMIT")
            self._database.executescript(_SCHEMA)
        except sqlite3.Error as error:
            self._database.close()
            raise UnavailableError(
                f"{folder}: the index cannot be opened ({error}): another process has it open, or "
                "the folder cannot be written; stop the other process or choose another folder",
                culprit=str(folder),
            ) from error

    def close(self) -> None:
        """Gives up the lock."""
        with self._lock:
            self._database.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._database.execute("BEGIN")
            try:
                yield self._database
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")

    def create(self, collection_id: str, spec: CollectionSpec) -> None:
        """Enters a collection; ConflictError if the id is taken by something else."""
        with self._transaction() as database:
            taken = database.execute(
                "SELECT collection FROM aliases WHERE name = ?", [collection_id]
            ).fetchone()
            if taken:
                raise refusals.id_is_alias(collection_id, taken[0])
            found = database.execute(
                "SELECT spec FROM collections WHERE id = ?", [collection_id]
            ).fetchone()
            if found and spec_from_json(found[0]) != spec:
                raise refusals.other_spec(collection_id)
            if not found:
                database.execute(
                    "INSERT INTO collections (id, spec, create_time) VALUES (?, ?, ?)",
                    [collection_id, spec_to_json(spec), datetime.now(UTC).isoformat()],
                )

    def resolve(self, id_or_alias: str) -> str:
        """The id that an id or alias stands for; NotFoundError if there is none."""
        with self._lock:
            found = self._database.execute(
                "SELECT id FROM collections WHERE id = ?1 "
                "UNION SELECT collection FROM aliases WHERE name = ?1",
                [id_or_alias],
            ).fetchone()
        if not found:
            raise self._unknown(id_or_alias)
        return str(found[0])

    def describe(self, collection_id: str) -> Collection:
        """One collection, by id; NotFoundError if there is none."""
        with self._lock:
            row = self._database.execute(
                "SELECT spec, create_time, published FROM collections WHERE id = ?", [collection_id]
            ).fetchone()
            if not row:
                raise self._unknown(collection_id)
            points, sources = self._total(collection_id)
            aliases = self._database.execute(
                "SELECT name FROM aliases WHERE collection = ? ORDER BY name", [collection_id]
            ).fetchall()
        return Collection(
            id=collection_id,
            spec=spec_from_json(row[0]),
            point_count=points,
            source_count=sources,
            published=bool(row[2]),
            aliases=tuple(name for (name,) in aliases),
            create_time=datetime.fromisoformat(row[1]),
        )

    def _total(self, collection_id: str) -> tuple[int, int]:
        if collection_id not in self._totals:
            self._totals[collection_id] = self._database.execute(
                "SELECT COALESCE(SUM(frame_count), 0), COUNT(*) FROM sources WHERE collection = ?",
                [collection_id],
            ).fetchone()
        return self._totals[collection_id]

    def ids(self) -> list[str]:
        """The ids there are, in order."""
        with self._lock:
            rows = self._database.execute("SELECT id FROM collections ORDER BY id").fetchall()
        return [name for (name,) in rows]

    def sources(self, collection_id: str) -> list[SourceRef]:
        """The sounds of a collection, by their numbers 0, 1, 2 …"""
        with self._lock:
            rows = self._database.execute(
                "SELECT key, sha256, size_bytes, media_type FROM sources "
                "WHERE collection = ? ORDER BY number",
                [collection_id],
            ).fetchall()
        return [SourceRef(*row) for row in rows]

    def find_source(self, collection_id: str, key: str) -> tuple[str, str] | None:
        """SHA-256 of the sound under `key` and of its frames, or None."""
        with self._lock:
            row = self._database.execute(
                "SELECT sha256, frames_sha256 FROM sources WHERE collection = ? AND key = ?",
                [collection_id, key],
            ).fetchone()
        return (row[0], row[1]) if row else None

    def add_source(
        self, collection_id: str, source: SourceRef, frame_count: int, frames_sha256: str
    ) -> None:
        """Enters a sound under the next number."""
        with self._lock:
            points, sources = self._total(collection_id)
            self._database.execute(
                "INSERT INTO sources VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    collection_id,
                    sources,
                    source.key,
                    source.sha256,
                    source.size_bytes,
                    source.media_type,
                    frame_count,
                    frames_sha256,
                ],
            )
            self._totals[collection_id] = (points + frame_count, sources + 1)

    def publish(self, collection_id: str, alias: str) -> None:
        """Marks a collection complete and points `alias`, unless empty, at it."""
        with self._transaction() as database:
            if database.execute("SELECT 1 FROM collections WHERE id = ?", [alias]).fetchone():
                raise refusals.alias_is_id(alias)
            database.execute("UPDATE collections SET published = 1 WHERE id = ?", [collection_id])
            if alias:
                database.execute(
                    "INSERT OR REPLACE INTO aliases (name, collection) VALUES (?, ?)",
                    [alias, collection_id],
                )

    def delete(self, collection_id: str) -> None:
        """Removes a collection, its sounds and aliases."""
        with self._transaction() as database:
            database.execute("DELETE FROM collections WHERE id = ?", [collection_id])
            self._totals.pop(collection_id, None)

    def _unknown(self, name: str) -> NotFoundError:
        with self._lock:
            aliases = self._database.execute("SELECT name, collection FROM aliases").fetchall()
        return refusals.unknown(name, aliases, self.ids())
