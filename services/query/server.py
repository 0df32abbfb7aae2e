"""The vector index on a Qdrant server, which several replicas of the query service may share.

All state is on the server: a collection's specification and whether it is published are metadata of
the collection itself, so that it is made whole or not at all; aliases are Qdrant's own. See
https://qdrant.tech/documentation/concepts/collections/.
"""

import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qdrant_client import models

from services.audio.match_table import SourceRef
from services.errors import ConflictError, CorruptObjectError, InvalidInputError, NotFoundError
from services.query import refusals
from services.query.connection import Connection, failure
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
from services.query.search import Hits, Points, Search
from services.query.server_collection import IndexedSound, ServerCollection, Sounds
from services.query.spec_json import spec_from_json, spec_to_json

_REMEMBERED_COLLECTIONS = 16
_STRANGERS_AT_ONCE = 1000
_STATUS_EVERY_SECONDS = 0.1
_NAMED_IN_ERRORS = 5


@dataclass(frozen=True, eq=False)
class _Found:
    """A collection as the server describes it."""

    id: str
    spec: CollectionSpec
    create_time: str
    published: bool
    frames: ServerCollection
    indexed_fields: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _View:
    """An Engine: the frames of a collection, by the sounds that were there when it was made."""

    frames: ServerCollection
    sounds: Sounds
    checkpoint: Checkpoint

    def nearest(self, queries: NDArray[np.float32], limit: int, mode: SearchMode) -> Hits:
        return self.frames.nearest(queries, limit, mode, self._position, self.checkpoint)

    def pages(self) -> Iterator[Points]:
        return self.frames.pages(self._position, self.checkpoint)

    def _position(self, number: int) -> int:
        return self.sounds.positions.get(number, -1)


class ServerIndex(VectorIndex):
    """The collections whose names on the server begin with `namespace` and a dot."""

    def __init__(self, connection: Connection, namespace: str = "demiurge") -> None:
        self._connection = connection
        self._client = connection.client
        self._prefix = f"{namespace}."
        self._lock = Lock()
        self._remembered: OrderedDict[tuple[str, str], Sounds] = OrderedDict()

    def create(self, collection_id: str, spec: CollectionSpec) -> Collection:
        """See VectorIndex."""
        name = self._prefix + refusals.checked_id(collection_id)
        if self._find(collection_id) is None:
            metadata = {
                "id": collection_id,
                "spec": spec_to_json(spec),
                "create_time": datetime.now(UTC).isoformat(),
                "published": False,
            }
            try:
                ServerCollection(self._connection, name, spec).create(metadata)
            except (ConflictError, InvalidInputError):
                # Another replica may have been faster, and what it made is as good.
                if self._find(collection_id) is None:
                    raise
        found = self._found(collection_id)
        if found.id != collection_id:
            raise refusals.id_is_alias(collection_id, found.id)
        if found.spec != spec:
            raise refusals.other_spec(collection_id)
        found.frames.index_payloads(found.indexed_fields)
        return self._described(found, self._aliases())

    def add(
        self,
        collection_id: str,
        source: SourceRef,
        frames: NDArray[np.float32],
        *,
        checkpoint: Checkpoint = never_stopped,
    ) -> int:
        """See VectorIndex. Frames that the server lost of a sound are put back."""
        found = self._found(collection_id, by_alias=False)
        digest = refusals.checked_frames(collection_id, found.spec, source, frames)
        record = IndexedSound(source, len(frames), digest)
        with self._there(collection_id):
            known = found.frames.find(source.key, checkpoint)
            if known is None and found.published:
                raise refusals.published(collection_id, source)
            if known is None:
                found.frames.add_frames(record, frames, checkpoint)
                found.frames.enter(record, checkpoint)
                known = found.frames.find(source.key, checkpoint) or record
            elif known.number == record.number and found.frames.frame_count(record) < len(frames):
                found.frames.add_frames(record, frames, checkpoint)
        if known.number != record.number:
            raise refusals.changed(collection_id, source, known.source.sha256)
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
        found = self._found(collection_id, by_alias=False)
        with self._there(collection_id):
            if not self._records(found).point_count:
                raise refusals.empty(collection_id)
            taken = self._find(alias) if alias else None
            if taken and taken.id == alias:
                raise refusals.alias_is_id(alias)
            self._settle(found, checkpoint)
            if not skip_graph:
                found.frames.build_graph()
                self._await_green(collection_id, checkpoint)
            name = self._prefix + collection_id
            self._connection.call(
                partial(self._client.update_collection, name, metadata={"published": True})
            )
            if alias:
                self._point(self._prefix + alias, name)
        return self.describe(collection_id)

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
        found = self._found(id_or_alias)
        with self._there(found.id):
            records = self._records(found)
            refusals.checked_neighbors(found.id, k, records.point_count)
            wanted = records.point_count + len(records.all)
            if (count := found.frames.point_count()) < wanted:
                raise CorruptObjectError(
                    f"collection {found.id!r} on {self._connection.url} lacks {wanted - count} "
                    "frames: index its sounds again, or let `demiurge doctor --deep --mend` do it",
                    culprit=found.id,
                )
            view = _View(found.frames, records, checkpoint)
            search = Search(found.spec, view, records.sources, records.point_count, checkpoint)
            return search.neighbors(queries, k, mode)

    def points(self, collection_id: str) -> Iterator[PointPage]:
        """See VectorIndex."""
        found = self._found(collection_id, by_alias=False)
        with self._there(collection_id):
            records = found.frames.records()
            view = _View(found.frames, records, never_stopped)
            for points in view.pages():
                yield points.page(records.sources)

    def describe(self, id_or_alias: str) -> Collection:
        """See VectorIndex."""
        return self._described(self._found(id_or_alias), self._aliases())

    def spec(self, id_or_alias: str) -> CollectionSpec:
        """See VectorIndex."""
        return self._found(id_or_alias).spec

    def list(self) -> list[Collection]:
        """See VectorIndex."""
        aliases = self._aliases()
        described = []
        for collection_id in self._ids():
            # Deleted meanwhile: then it is not there.
            with suppress(NotFoundError):
                described.append(self._described(self._found(collection_id), aliases))
        return described

    def delete(self, collection_id: str) -> None:
        """See VectorIndex."""
        self._found(collection_id, by_alias=False)
        self._connection.call(partial(self._client.delete_collection, self._prefix + collection_id))

    def close(self) -> None:
        """See VectorIndex."""
        self._connection.close()

    def _find(self, id_or_alias: str) -> _Found | None:
        """The collection of that id or alias, if there is one."""
        name = self._prefix + id_or_alias
        try:
            info = self._connection.call(partial(self._client.get_collection, name))
        except NotFoundError:
            return None
        metadata: dict[str, Any] = info.config.metadata or {}
        try:
            collection_id, spec = metadata["id"], spec_from_json(metadata["spec"])
            frames = ServerCollection(self._connection, self._prefix + collection_id, spec)
            return _Found(
                id=collection_id,
                spec=spec,
                create_time=metadata["create_time"],
                published=metadata["published"],
                frames=frames,
                indexed_fields=tuple(info.payload_schema),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptObjectError(
                f"collection {name!r} on {self._connection.url} does not say what it was made for: "
                "it is not one of ours, or the server is older than Qdrant 1.17; delete it there",
                culprit=id_or_alias,
            ) from error

    def _found(self, name: str, *, by_alias: bool = True) -> _Found:
        found = self._find(name) if name else None
        if found is None or not (by_alias or found.id == name):
            raise self._unknown(name)
        return found

    @contextmanager
    def _there(self, collection_id: str) -> Iterator[None]:
        """For calls to a collection that somebody else may delete meanwhile."""
        try:
            yield
        except NotFoundError:
            raise self._unknown(collection_id) from None

    def _unknown(self, name: str) -> NotFoundError:
        return refusals.unknown(name, self._aliases(), self._ids())

    def _ids(self) -> Sequence[str]:
        found = self._connection.call(self._client.get_collections).collections
        names = (collection.name for collection in found)
        return sorted(self._own(name) for name in names if name.startswith(self._prefix))

    def _aliases(self) -> Sequence[tuple[str, str]]:
        """Pairs of alias and collection, in order."""
        found = self._connection.call(self._client.get_aliases).aliases
        pairs = ((alias.alias_name, alias.collection_name) for alias in found)
        return sorted(
            (self._own(alias), self._own(name))
            for alias, name in pairs
            if alias.startswith(self._prefix)
        )

    def _own(self, name: str) -> str:
        return name.removeprefix(self._prefix)

    def _described(self, found: _Found, aliases: Sequence[tuple[str, str]]) -> Collection:
        records = self._records(found)
        return Collection(
            id=found.id,
            spec=found.spec,
            point_count=records.point_count,
            source_count=len(records.all),
            published=found.published,
            aliases=tuple(alias for alias, target in aliases if target == found.id),
            create_time=datetime.fromisoformat(found.create_time),
        )

    def _records(self, found: _Found) -> Sounds:
        """The sounds of a collection; fetched anew only if there are more than are remembered."""
        remembered = (found.id, found.create_time)
        with self._there(found.id):
            with self._lock:
                records = self._remembered.get(remembered)
            if records is None or len(records.all) != found.frames.record_count():
                records = found.frames.records()
        with self._lock:
            self._remembered[remembered] = records
            self._remembered.move_to_end(remembered)
            while len(self._remembered) > _REMEMBERED_COLLECTIONS:
                self._remembered.popitem(last=False)
        return records

    def _settle(self, found: _Found, checkpoint: Checkpoint) -> None:
        """Removes frames without a record; CorruptObjectError for records without their frames."""
        while True:
            checkpoint()
            records = found.frames.records()
            counts = found.frames.frame_counts(len(records.all) + _STRANGERS_AT_ONCE)
            # Records are older than the frames seen: those entered in between are looked up anew.
            strangers = counts.keys() - records.positions.keys()
            strangers -= found.frames.records().positions.keys() if strangers else set()
            if not strangers:
                break
            found.frames.discard(sorted(strangers))
        short = [
            record.source.key
            for record in records.all
            if counts.get(record.number, 0) < record.frame_count
        ]
        if short:
            more = " …" if len(short) > _NAMED_IN_ERRORS else ""
            raise CorruptObjectError(
                f"collection {found.id!r} on {self._connection.url} lacks frames of "
                f"{', '.join(short[:_NAMED_IN_ERRORS])}{more}: index these sounds again",
                culprit=found.id,
            )

    def _await_green(self, collection_id: str, checkpoint: Checkpoint) -> None:
        """Waits until the server has built what it was told to."""
        name = self._prefix + collection_id
        while True:
            info = self._connection.call(partial(self._client.get_collection, name), checkpoint)
            if isinstance(info.optimizer_status, models.OptimizersStatusOneOf1):
                raise failure(self._connection.url, info.optimizer_status.error)
            if info.status is models.CollectionStatus.GREEN:
                return
            time.sleep(_STATUS_EVERY_SECONDS)

    def _point(self, alias: str, name: str) -> None:
        """Points an alias at a collection, away from any other, in one step."""
        self._connection.call(
            partial(
                self._client.update_collection_aliases,
                [
                    models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias)),
                    models.CreateAliasOperation(
                        create_alias=models.CreateAlias(collection_name=name, alias_name=alias)
                    ),
                ],
            )
        )
