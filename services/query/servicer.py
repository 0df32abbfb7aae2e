"""demiurge.query.v1.QueryService: messages to the index and back."""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from demiurge.query.v1 import query_service_pb2 as pb
from demiurge.query.v1 import query_service_pb2_grpc
from google.protobuf.timestamp_pb2 import Timestamp

from services.errors import InvalidInputError
from services.query.index import (
    Collection,
    CollectionSpec,
    Metric,
    Scaling,
    SearchMode,
    VectorIndex,
)
from services.query.matching import index_track, match_track
from services.query.settings import QuerySettings
from services.runtime.messages import (
    match_table_to_message,
    source_from_message,
    statistics_from_message,
    statistics_to_message,
    track_from_message,
)
from services.runtime.object_store.port import ObjectStore

if TYPE_CHECKING:
    import grpc

    Context = grpc.aio.ServicerContext[object, object]

_DEFAULT_PAGE_SIZE = 100

# Unspecified values read as published.
_METRICS: Mapping[int, Metric] = {
    pb.METRIC_UNSPECIFIED: Metric.EUCLIDEAN,
    pb.METRIC_EUCLIDEAN: Metric.EUCLIDEAN,
    pb.METRIC_COSINE: Metric.COSINE,
    pb.METRIC_MANHATTAN: Metric.MANHATTAN,
}
_SCALINGS: Mapping[int, Scaling] = {
    pb.SCALING_UNSPECIFIED: Scaling.NONE,
    pb.SCALING_NONE: Scaling.NONE,
    pb.SCALING_STANDARDIZED: Scaling.STANDARDIZED,
}
_MODES: Mapping[int, SearchMode] = {
    pb.SEARCH_MODE_UNSPECIFIED: SearchMode.EXACT,
    pb.SEARCH_MODE_EXACT: SearchMode.EXACT,
    pb.SEARCH_MODE_APPROXIMATE: SearchMode.APPROXIMATE,
}


class QueryServicer(query_service_pb2_grpc.QueryServiceServicer):
    """Keeps collections in `index`; tracks sent by reference are read from `store`."""

    def __init__(self, settings: QuerySettings, store: ObjectStore, index: VectorIndex) -> None:
        self._settings = settings
        self._store = store
        self._index = index

    async def CreateCollection(
        self, request: pb.CreateCollectionRequest, context: "Context"
    ) -> pb.CreateCollectionResponse:
        """Makes an empty collection."""
        spec = _spec_from_message(request.spec)
        made = await asyncio.to_thread(self._index.create, request.collection_id, spec)
        return pb.CreateCollectionResponse(collection=_collection_to_message(made))

    async def IndexDescriptors(
        self, request: pb.IndexDescriptorsRequest, context: "Context"
    ) -> pb.IndexDescriptorsResponse:
        """Takes in one track."""

        def work() -> int:
            track = track_from_message(request.track, self._store)
            source = source_from_message(request.source)
            return index_track(self._index, request.collection_id, source, track)

        return pb.IndexDescriptorsResponse(point_count=await asyncio.to_thread(work))

    async def PublishCollection(
        self, request: pb.PublishCollectionRequest, context: "Context"
    ) -> pb.PublishCollectionResponse:
        """Declares a collection complete."""
        done = await asyncio.to_thread(self._index.publish, request.collection_id, request.alias)
        return pb.PublishCollectionResponse(collection=_collection_to_message(done))

    async def MatchDescriptors(
        self, request: pb.MatchDescriptorsRequest, context: "Context"
    ) -> pb.MatchDescriptorsResponse:
        """Answers each frame of a track with its nearest moments."""

        def work() -> pb.MatchDescriptorsResponse:
            track = track_from_message(request.track, self._store)
            neighbors = request.neighbors or 1
            if track.frame_count * neighbors > self._settings.max_rows:
                raise InvalidInputError(
                    f"{track.source or 'track'}: {neighbors} neighbours of {track.frame_count} "
                    f"frames are more than {self._settings.max_rows} rows: ask for fewer, or match "
                    "the track in pieces",
                    culprit="neighbors",
                )
            mode = _MODES[request.search_mode]
            table = match_track(self._index, request.collection_id, track, neighbors, mode)
            return pb.MatchDescriptorsResponse(matches=match_table_to_message(table))

        return await asyncio.to_thread(work)

    async def GetCollection(
        self, request: pb.GetCollectionRequest, context: "Context"
    ) -> pb.GetCollectionResponse:
        """Describes one collection."""
        found = await asyncio.to_thread(self._index.describe, request.collection_id)
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
        await asyncio.to_thread(self._index.delete, request.collection_id)
        return pb.DeleteCollectionResponse()


def _spec_from_message(message: pb.CollectionSpec) -> CollectionSpec:
    return CollectionSpec(
        feature_names=tuple(message.feature_names),
        sample_rate_hertz=message.sample_rate_hertz,
        hop_length_samples=message.hop_length_samples,
        metric=_METRICS[message.metric],
        scaling=_SCALINGS[message.scaling],
        statistics=(
            statistics_from_message(message.statistics) if message.HasField("statistics") else None
        ),
    )


def _collection_to_message(collection: Collection) -> pb.Collection:
    spec = collection.spec
    created = Timestamp()
    created.FromDatetime(collection.create_time)
    return pb.Collection(
        id=collection.id,
        spec=pb.CollectionSpec(
            feature_names=spec.feature_names,
            sample_rate_hertz=spec.sample_rate_hertz,
            hop_length_samples=spec.hop_length_samples,
            metric=pb.Metric.Value(f"METRIC_{spec.metric.name}"),
            scaling=pb.Scaling.Value(f"SCALING_{spec.scaling.name}"),
            statistics=None if spec.statistics is None else statistics_to_message(spec.statistics),
        ),
        point_count=collection.point_count,
        source_count=collection.source_count,
        published=collection.published,
        aliases=collection.aliases,
        create_time=created,
    )
