"""The vector index embedded in the process: Qdrant Edge shards and a catalogue under one folder.

The catalogue is the truth: frames that it does not know of, left by a crash, are discarded before
a collection is used again. See https://qdrant.tech/documentation/edge/.
"""

import hashlib
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock

import numpy as np
from numpy.typing import NDArray

from services.audio.match_table import SourceRef
from services.errors import (
    CorruptObjectError,
    DemiurgeError,
    StorageFullError,
    UnavailableError,
)
from services.query import refusals
from services.query.catalog import Catalog
from services.query.index import (
    Checkpoint,
    Collection,
    CollectionSpec,
    Neighbors,
    PointPage,
    SearchMode,
    VectorIndex,
    never_stopped,
)
from services.query.search import Search
from services.query.shard import FrameShard

# Each open shard keeps threads, open files and memory, however long nobody asks it anything.
_OPEN_SHARDS = 8
# What the system, the engine and SQLite say of a full disk or quota.
_FULL = ("No space left", "quota exceeded", "disk is full")
# What the engine allots to an empty collection, with much to spare.
_ROOM_BYTES = 32 << 20
# Of each frame: raw, to search by, in the log and, while the graph is built, once more.
_COPIES = 4


class EdgeIndex(VectorIndex):
    """An index in `folder`, which one process may have open at a time.

    Raises UnavailableError, naming the folder, if another process has it open. Collections are
    opened when first used, and those unused longest are closed again; each answers one thread at
    a time.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._catalog = Catalog(folder)
        self._lock = RLock()
        self._locks: dict[str, RLock] = {}
        self._shards: dict[str, FrameShard] = {}

    def create(self, collection_id: str, spec: CollectionSpec) -> Collection:
        """See VectorIndex."""
        refusals.checked_id(collection_id)
        if collection_id not in self._catalog.ids():
            self._check_room(0)
        self._catalog.create(collection_id, spec)
        with self._held(collection_id) as collection:
            if collection.point_count and not self._stands(collection):
                # Its frames are lost whatever the catalogue says: they are to be indexed again.
                self._forget(collection_id)
                shutil.rmtree(self._path(collection_id), ignore_errors=True)
                self._catalog.delete(collection_id)
                self._catalog.create(collection_id, spec)
            return self._catalog.describe(collection_id)

    def add(
        self,
        collection_id: str,
        source: SourceRef,
        frames: NDArray[np.float32],
        *,
        checkpoint: Checkpoint = never_stopped,
    ) -> int:
        """See VectorIndex."""
        with self._held(collection_id) as collection:
            digest = refusals.checked_frames(collection_id, collection.spec, source, frames)
            known = self._catalog.find_source(collection_id, source.key)
            if known is None and not collection.published:
                self._check_room(_COPIES * frames.nbytes)
            # Opened before the catalogue is believed: what it names may be lost.
            shard = self._whole_shard(collection)
            if known == (source.sha256, digest):
                return len(frames)
            if known:
                raise refusals.changed(collection_id, source, known[0])
            if collection.published:
                raise refusals.published(collection_id, source)
            try:
                shard.add(collection.source_count, source, frames, checkpoint)
            except BaseException:
                # Opened anew, hence mended, before it is used again.
                self._forget(collection_id)
                raise
            self._catalog.add_source(collection_id, source, len(frames), digest)
            return len(frames)

    def publish(
        self,
        collection_id: str,
        alias: str = "",
        *,
        skip_graph: bool = False,
        checkpoint: Checkpoint = never_stopped,
    ) -> Collection:
        """See VectorIndex."""
        if alias:
            refusals.checked_id(alias)
        with self._held(collection_id) as collection:
            if not collection.point_count:
                raise refusals.empty(collection_id)
            shard = self._whole_shard(collection)
            checkpoint()
            if not skip_graph:
                if not (collection.published and shard.finished()):
                    size = 4 * len(collection.spec.feature_names) * collection.point_count
                    self._check_room(_COPIES * size)
                shard.finish()
            self._catalog.publish(collection_id, alias)
            return self._catalog.describe(collection_id)

    def search(
        self,
        id_or_alias: str,
        queries: NDArray[np.float32],
        k: int,
        mode: SearchMode,
        *,
        checkpoint: Checkpoint = never_stopped,
    ) -> Neighbors:
        """See VectorIndex."""
        collection_id = self._catalog.resolve(id_or_alias)
        with self._held(collection_id) as collection:
            refusals.checked_neighbors(collection_id, k, collection.point_count)
            shard = self._whole_shard(collection)
            sources = self._catalog.sources(collection_id)
            search = Search(collection.spec, shard, sources, collection.point_count, checkpoint)
            return search.neighbors(queries, k, mode)

    def points(self, collection_id: str) -> Iterator[PointPage]:
        """See VectorIndex."""
        offset = None
        while True:
            # Held page by page: an audit keeps nobody waiting.
            with self._held(collection_id) as collection:
                points, offset = self._shard(collection).page(offset)
                sources = self._catalog.sources(collection_id)
            yield points.page(sources)
            if offset is None:
                return

    def describe(self, id_or_alias: str) -> Collection:
        """See VectorIndex."""
        return self._catalog.describe(self._catalog.resolve(id_or_alias))

    def list(self) -> list[Collection]:
        """See VectorIndex."""
        return [self._catalog.describe(collection_id) for collection_id in self._catalog.ids()]

    def delete(self, collection_id: str) -> None:
        """See VectorIndex."""
        with self._held(collection_id):
            self._catalog.delete(collection_id)
            self._forget(collection_id)
            shutil.rmtree(self._path(collection_id), ignore_errors=True)

    def close(self) -> None:
        """See VectorIndex."""
        with self._lock:
            locks = list(self._locks.items())
        for collection_id, lock in locks:
            with lock:
                self._forget(collection_id)
        self._catalog.close()

    @contextmanager
    def _held(self, collection_id: str) -> Iterator[Collection]:
        """Keeps other threads off a collection; after a failure it is opened anew, hence mended."""
        self._catalog.describe(collection_id)
        with self._lock:
            lock = self._locks.setdefault(collection_id, RLock())
        with lock:
            try:
                yield self._catalog.describe(collection_id)
            except DemiurgeError:
                raise
            except BaseException as error:
                self._forget(collection_id)
                # The engine knows no other class than Exception itself.
                if not isinstance(error, OSError | sqlite3.Error) and type(error) is not Exception:
                    raise
                raise self._away(collection_id, error) from error

    def _check_room(self, size_bytes: int) -> None:
        """Raises StorageFullError unless so much more can be written.

        The engine writes into memory that files are mapped to: when their disk is full, the system
        does not fail a call, but ends the process.
        """
        free = shutil.disk_usage(self._folder).free
        if free < _ROOM_BYTES + size_bytes:
            raise StorageFullError(
                f"{self._folder} is full: the index needs {(_ROOM_BYTES + size_bytes) >> 20} MiB, "
                f"and there are {free >> 20}; make room there, or choose another folder by "
                "DEMIURGE_QUERY_FOLDER",
                culprit=str(self._folder),
            )

    def _away(self, collection_id: str, error: Exception) -> DemiurgeError:
        said = f"collection {collection_id!r} in {self._folder}: {error}"
        if any(full in str(error) for full in _FULL):
            return StorageFullError(
                f"{said}; make room there, or choose another folder by DEMIURGE_QUERY_FOLDER",
                culprit=str(self._folder),
            )
        return UnavailableError(said, culprit=collection_id)

    def _path(self, collection_id: str) -> Path:
        # By digest: ids that differ only in case are two folders on every file system.
        return self._folder / "shards" / hashlib.sha256(collection_id.encode()).hexdigest()[:32]

    def _whole_shard(self, collection: Collection) -> FrameShard:
        """The shard, if it holds what the catalogue says; CorruptObjectError if not."""
        shard = self._shard(collection)
        if (count := shard.count()) != collection.point_count:
            raise CorruptObjectError(
                f"collection {collection.id!r} in {self._folder} holds {count} frames, not "
                f"{collection.point_count}: `demiurge doctor --deep --mend` rebuilds it",
                culprit=collection.id,
            )
        return shard

    def _stands(self, collection: Collection) -> bool:
        """Whether a collection can go on as it is: nobody waits for one that was never complete."""
        if collection.published:
            return self._path(collection.id).exists()
        try:
            self._whole_shard(collection)
        except CorruptObjectError:
            return False
        return True

    def _shard(self, collection: Collection) -> FrameShard:
        with self._lock:
            shard = self._shards.pop(collection.id, None)
            if shard is not None:
                self._shards[collection.id] = shard  # last: the latest used
                return shard
        self._close_idle(_OPEN_SHARDS - 1)
        shard = self._opened(collection)
        with self._lock:
            self._shards[collection.id] = shard
        return shard

    def _close_idle(self, most: int) -> None:
        """Closes shards, the longest unused first, until `most` are open; busy ones stay."""
        with self._lock:
            unused = [(name, self._locks[name]) for name in self._shards]
        for collection_id, lock in unused:
            if len(self._shards) <= most:
                return
            # Not waited for: its holder may be about to close ours.
            if lock.acquire(blocking=False):
                try:
                    self._forget(collection_id)
                finally:
                    lock.release()

    def _opened(self, collection: Collection) -> FrameShard:
        path = self._path(collection.id)
        if not collection.point_count:
            # Whatever is there was left by a crash, or by a collection deleted since.
            shutil.rmtree(path, ignore_errors=True)
            return FrameShard(path, collection.spec, create=True)
        try:
            shard = FrameShard(path, collection.spec, create=False)
            if shard.count() != collection.point_count:
                shard.discard_from(collection.source_count)
        except Exception as error:
            raise CorruptObjectError(
                f"collection {collection.id!r} in {self._folder} cannot be opened: {error}; "
                "`demiurge doctor --deep --mend` rebuilds it",
                culprit=collection.id,
            ) from error
        return shard

    def _forget(self, collection_id: str) -> None:
        with self._lock:
            shard = self._shards.pop(collection_id, None)
        if shard is not None:
            shard.close()
