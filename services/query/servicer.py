"""demiurge.query.v1.QueryService: messages to the index and back."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

from demiurge.query.v1 import query_service_pb2 as pb
from demiurge.query.v1 import query_service_pb2_grpc
from google.protobuf.timestamp_pb2 import Timestamp

from services.errors import CancelledError, InvalidInputError, NotFoundError
from services.query.audit import Audit, audit, fill_up, mend, same_sounds
from services.query.index import Checkpoint, Collection, SearchMode, VectorIndex
from services.query.matching import index_track, match_track
from services.query.records import CollectionRecords, spec_from_message, spec_to_message
from services.query.settings import QuerySettings
from services.query.turns import Turns
from services.runtime.messages import (
    match_table_to_message,
    source_from_message,
    track_from_message,
)
from services.runtime.object_store.port import ObjectStore

if TYPE_CHECKING:
    import grpc

    Context = grpc.aio.ServicerContext[object, object]

Answer = TypeVar("Answer")

_DEFAULT_PAGE_SIZE = 100

# Unspecified values read as published.
_MODES: Mapping[int, SearchMode] = {
    pb.SEARCH_MODE_UNSPECIFIED: SearchMode.EXACT,
    pb.SEARCH_MODE_EXACT: SearchMode.EXACT,
    pb.SEARCH_MODE_APPROXIMATE: SearchMode.APPROXIMATE,
}


class QueryServicer(query_service_pb2_grpc.QueryServiceServicer):
    """Keeps collections in `index`, and in `store` what it takes to check and rebuild them.

    Tracks sent by reference are read from `store`, too. A collection is not taken apart while it is
    filled or published; where other processes share the index, what it lost by that is put back
    before it is published.
    """

    def __init__(self, settings: QuerySettings, store: ObjectStore, index: VectorIndex) -> None:
        self._settings = settings
        self._store = store
        self._index = index
        self._records = CollectionRecords(store)
        self._turns = Turns()

    async def CreateCollection(
        self, request: pb.CreateCollectionRequest, context: "Context"
    ) -> pb.CreateCollectionResponse:
        """Makes an empty collection."""

        def work(checkpoint: Checkpoint) -> Collection:
            name, spec = request.collection_id, spec_from_message(request.spec)
            with self._turns.shared(name, checkpoint):
                self._records.expect(name, spec)
                made = self._index.create(name, spec)
                self._records.begin(made)
            return made

        made = await _while_wanted(work)
        return pb.CreateCollectionResponse(collection=_collection_to_message(made))

    async def IndexDescriptors(
        self, request: pb.IndexDescriptorsRequest, context: "Context"
    ) -> pb.IndexDescriptorsResponse:
        """Takes in one track."""

        def work(checkpoint: Checkpoint) -> int:
            name, track = request.collection_id, track_from_message(request.track, self._store)
            source = source_from_message(request.source)
            with self._turns.shared(name, checkpoint):
                with self._known(name):
                    count = index_track(self._index, name, source, track, checkpoint=checkpoint)
                self._records.add(name, request.source, request.track, track)
            return count

        return pb.IndexDescriptorsResponse(point_count=await _while_wanted(work))

    async def PublishCollection(
        self, request: pb.PublishCollectionRequest, context: "Context"
    ) -> pb.PublishCollectionResponse:
        """Declares a collection complete."""

        def work(checkpoint: Checkpoint) -> Collection:
            name, alias, skip_graph = request.collection_id, request.alias, request.skip_graph
            with self._turns.shared(name, checkpoint):
                with self._known(name):
                    if not self._index.describe(name).published and self._records.knows(name):
                        fill_up(self._index, self._records.read(name), checkpoint)
                    done = self._index.publish(
                        name, alias, skip_graph=skip_graph, checkpoint=checkpoint
                    )
                # Another process may have rebuilt it meanwhile.
                if self._records.knows(name):
                    same_sounds(done, self._records.sound_count(name))
                self._records.publish(name, alias, skip_graph=skip_graph)
            return done

        done = await _while_wanted(work)
        return pb.PublishCollectionResponse(collection=_collection_to_message(done))

    async def MatchDescriptors(
        self, request: pb.MatchDescriptorsRequest, context: "Context"
    ) -> pb.MatchDescriptorsResponse:
        """Answers each frame of a track with its nearest moments."""

        def work(checkpoint: Checkpoint) -> pb.MatchDescriptorsResponse:
            track = track_from_message(request.track, self._store)
            neighbors = request.neighbors or 1
            if track.frame_count * neighbors > self._settings.max_rows:
                raise InvalidInputError(
                    f"{track.source or 'track'}: {neighbors} neighbours of {track.frame_count} "
                    f"frames are more than {self._settings.max_rows} rows: ask for fewer, or match "
                    "the track in pieces",
                    culprit="neighbors",
                )
            name, mode = request.collection_id, _MODES[request.search_mode]
            with self._known(name):
                table = match_track(
                    self._index, name, track, neighbors, mode, checkpoint=checkpoint
                )
            return pb.MatchDescriptorsResponse(matches=match_table_to_message(table))

        return await _while_wanted(work)

    async def GetCollection(
        self, request: pb.GetCollectionRequest, context: "Context"
    ) -> pb.GetCollectionResponse:
        """Describes one collection."""

        def work() -> Collection:
            with self._known(request.collection_id):
                return self._index.describe(request.collection_id)

        found = await asyncio.to_thread(work)
        return pb.GetCollectionResponse(collection=_collection_to_message(found))

    async def ListCollections(
        self, request: pb.ListCollectionsRequest, context: "Context"
    ) -> pb.ListCollectionsResponse:
        """Lists the collections by id; a page's token is the last id of the page before."""
        found = await asyncio.to_thread(self._index.list)
        rest = [collection for collection in found if collection.id > request.page_token]
        size = request.page_size or _DEFAULT_PAGE_SIZE
        return pb.ListCollectionsResponse(
            collections=[_collection_to_message(collection) for collection in rest[:size]],
            next_page_token=rest[size - 1].id if len(rest) > size else "",
        )

    async def DeleteCollection(
        self, request: pb.DeleteCollectionRequest, context: "Context"
    ) -> pb.DeleteCollectionResponse:
        """Removes a collection."""

        def work(checkpoint: Checkpoint) -> None:
            name = request.collection_id
            with self._turns.alone(name, checkpoint):
                try:
                    self._index.delete(name)
                except NotFoundError:
                    # The index lost it, or a deletion was cut short here.
                    if not self._records.any(name):
                        raise
                self._records.delete(name)

        await _while_wanted(work)
        return pb.DeleteCollectionResponse()

    async def CheckCollection(
        self, request: pb.CheckCollectionRequest, context: "Context"
    ) -> pb.CheckCollectionResponse:
        """Compares a collection with its records, and rebuilds it from them if asked to."""

        def work(checkpoint: Checkpoint) -> pb.CheckCollectionResponse:
            name, mended = request.collection_id, False
            found = audit(self._index, self._records.read(name), checkpoint)
            if request.mend and found.wrong:
                with self._turns.alone(name, checkpoint):
                    found, mended = self._mended(name, checkpoint)
            return pb.CheckCollectionResponse(
                expected_points=found.expected,
                missing_points=found.missing,
                duplicate_points=found.duplicate,
                orphaned_points=found.orphaned,
                changed_sources=found.changed,
                findings=found.findings,
                mended=mended,
            )

        return await _while_wanted(work)

    def _mended(self, name: str, checkpoint: Checkpoint) -> tuple[Audit, bool]:
        """What is wrong with a collection that nobody works on, and whether that is put right."""
        with suppress(NotFoundError):
            self._records.catch_up(self._index.describe(name))
        recorded = self._records.read(name)
        found = audit(self._index, recorded, checkpoint)
        if not found.wrong:
            return found, False
        mend(self._index, recorded, found, checkpoint)
        # Read anew: another process may have indexed sounds meanwhile.
        return found, not audit(self._index, self._records.read(name), checkpoint).wrong

    @contextmanager
    def _known(self, name: str) -> Iterator[None]:
        """Tells a collection that the index has lost from one that never was."""
        try:
            yield
        except NotFoundError as error:
            collection_id = self._records.collection_of(name)
            if not collection_id:
                raise
            raise NotFoundError(
                f"collection {name!r} is in the object store, but the index has lost it: "
                "`demiurge doctor --deep --mend` rebuilds it",
                culprit=name,
            ) from error


async def _while_wanted(work: Callable[[Checkpoint], Answer]) -> Answer:
    """What `work` answers in a thread; stopped at its next checkpoint if the caller leaves."""
    unwanted = threading.Event()

    def checkpoint() -> None:
        if unwanted.is_set():
            raise CancelledError("the caller no longer waits for the answer")

    try:
        return await asyncio.to_thread(work, checkpoint)
    finally:
        unwanted.set()


def _collection_to_message(collection: Collection) -> pb.Collection:
    created = Timestamp()
    created.FromDatetime(collection.create_time)
    return pb.Collection(
        id=collection.id,
        spec=spec_to_message(collection.spec),
        point_count=collection.point_count,
        source_count=collection.source_count,
        published=collection.published,
        aliases=collection.aliases,
        create_time=created,
    )
