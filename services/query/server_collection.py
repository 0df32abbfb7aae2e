"""One collection on a Qdrant server: frames, and a record for each sound that is wholly there.

A frame is a point as in the embedded engine, whose id and payload name its sound by a digest of
key, content and frames. A record is a point without vectors, under an id made from the key alone:
it is inserted once its frames are there, and never replaced, so that of several writers one wins.
Frames without a record were left by a crash, and count for nothing.
"""

import hashlib
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qdrant_client import models

from services.audio.match_table import SourceRef
from services.query.connection import Connection
from services.query.distances import for_engine
from services.query.index import Checkpoint, CollectionSpec, Metric, Scaling, SearchMode
from services.query.search import (
    BUILD_BREADTH,
    GRAPH_FROM_KIB,
    LINKS,
    SEARCH_BREADTH,
    Hits,
    Points,
)

_DISTANCES = {
    Metric.EUCLIDEAN: models.Distance.EUCLID,
    Metric.COSINE: models.Distance.COSINE,
    Metric.MANHATTAN: models.Distance.MANHATTAN,
}
_FRAME, _SEARCH = "frame", "search"
_SOURCE, _START = "source", "start_sample"
_KIND, _RECORD = "kind", "sound"

_VALUES_PER_CALL = 1 << 18
_MOST_POINTS_PER_CALL = 1024
_RECORDS_PER_PAGE = 10_000


@dataclass(frozen=True)
class IndexedSound:
    """A sound that is wholly there."""

    source: SourceRef
    frame_count: int
    frames_sha256: str

    @property
    def digest(self) -> bytes:
        """What its frames know it by: the same sound twice is the same points."""
        named = f"{self.source.key}\n{self.source.sha256}\n{self.frames_sha256}"
        return hashlib.sha256(named.encode()).digest()

    @property
    def number(self) -> int:
        """The digest as a payload holds it, in 63 bits."""
        return int.from_bytes(self.digest[:8], "big") >> 1


class Sounds:
    """The sounds of a collection at one time; `positions` finds them by number."""

    def __init__(self, records: Sequence[IndexedSound]) -> None:
        self.all = records
        self.sources = [record.source for record in records]
        self.positions = {record.number: place for place, record in enumerate(records)}
        self.point_count = sum(record.frame_count for record in records)


class ServerCollection:
    """The collection that the server knows as `name`; safe to use from many threads.

    Methods raise what Connection raises.
    """

    def __init__(self, connection: Connection, name: str, spec: CollectionSpec) -> None:
        self._connection = connection
        self._client = connection.client
        self._name = name
        self._spec = spec
        # Distances on raw frames need no second vector.
        raw = spec.scaling is Scaling.NONE and spec.metric is not Metric.COSINE
        self._searched = _FRAME if raw else _SEARCH
        self._batch = max(
            1, min(_MOST_POINTS_PER_CALL, _VALUES_PER_CALL // len(spec.feature_names))
        )

    def create(self, metadata: dict[str, Any]) -> None:
        """Makes it, without a graph; ConflictError or InvalidInputError if the name is taken."""

        def vector(distance: models.Distance, links: int, *, on_disk: bool) -> models.VectorParams:
            return models.VectorParams(
                size=len(self._spec.feature_names),
                distance=distance,
                hnsw_config=models.HnswConfigDiff(
                    m=links, ef_construct=BUILD_BREADTH, full_scan_threshold=GRAPH_FROM_KIB
                ),
                on_disk=on_disk,
            )

        # Raw frames beside those that are searched are read for a few candidates only.
        vectors = {_FRAME: vector(models.Distance.EUCLID, 0, on_disk=True)}
        vectors[self._searched] = vector(_DISTANCES[self._spec.metric], LINKS, on_disk=False)
        self._connection.call(
            partial(
                self._client.create_collection,
                self._name,
                vectors_config=vectors,
                optimizers_config=models.OptimizersConfigDiff(indexing_threshold=0),
                metadata=metadata,
            )
        )

    def index_payloads(self, indexed: Sequence[str]) -> None:
        """Sees to it that sounds are found without looking at every point."""
        for field, schema in (
            (_SOURCE, models.PayloadSchemaType.INTEGER),
            (_KIND, models.PayloadSchemaType.KEYWORD),
        ):
            if field not in indexed:
                self._connection.call(
                    partial(self._client.create_payload_index, self._name, field, schema, wait=True)
                )

    def build_graph(self) -> None:
        """Has the graph built; the server works on it until its status is green."""
        self._connection.call(
            partial(
                self._client.update_collection,
                self._name,
                optimizers_config=models.OptimizersConfigDiff(indexing_threshold=GRAPH_FROM_KIB),
            )
        )

    def add_frames(
        self, record: IndexedSound, frames: NDArray[np.float32], checkpoint: Checkpoint
    ) -> None:
        """Takes in the frames (n, features) of a sound; durable on return."""
        searched = for_engine(self._spec, frames)

        def batch(first: int) -> None:
            part = slice(first, first + self._batch)
            numbers = range(first, first + len(frames[part]))
            self._upsert(
                models.Batch(
                    # 96 bits of the digest, 32 of the frame's number.
                    ids=[
                        str(uuid.UUID(bytes=record.digest[:12] + number.to_bytes(4, "big")))
                        for number in numbers
                    ],
                    vectors={
                        _FRAME: frames[part].tolist(),
                        self._searched: searched[part].tolist(),
                    },
                    payloads=[
                        {_SOURCE: record.number, _START: number * self._spec.hop_length_samples}
                        for number in numbers
                    ],
                )
            )

        firsts = range(0, len(frames), self._batch)
        for _ in self._connection.calls((partial(batch, first) for first in firsts), checkpoint):
            pass

    def enter(self, record: IndexedSound, checkpoint: Checkpoint) -> None:
        """Inserts the record of a sound, unless there is one for its key."""
        source = record.source
        point = models.PointStruct(
            id=_record_id(source.key),
            vector={},
            payload={
                _KIND: _RECORD,
                "key": source.key,
                "sha256": source.sha256,
                "size_bytes": source.size_bytes,
                "media_type": source.media_type,
                "frame_count": record.frame_count,
                "frames_sha256": record.frames_sha256,
            },
        )
        self._connection.call(
            lambda: self._upsert([point], models.UpdateMode.INSERT_ONLY), checkpoint
        )

    def _upsert(
        self,
        points: models.Batch | list[models.PointStruct],
        mode: models.UpdateMode | None = None,
    ) -> None:
        self._client.upsert(
            self._name,
            points,
            wait=True,
            ordering=models.WriteOrdering.STRONG,
            update_mode=mode,
        )

    def find(self, key: str, checkpoint: Checkpoint) -> IndexedSound | None:
        """The record of a sound, if it is there."""
        found = self._connection.call(
            partial(self._client.retrieve, self._name, [_record_id(key)]), checkpoint
        )
        return _record(found[0].payload or {}) if found else None

    def records(self) -> Sounds:
        """The sounds that are wholly there."""
        found: list[IndexedSound] = []
        offset = None
        while True:
            points, offset = self._connection.call(
                partial(
                    self._client.scroll,
                    self._name,
                    scroll_filter=_matching(_KIND, [_RECORD]),
                    limit=_RECORDS_PER_PAGE,
                    offset=offset,
                )
            )
            found += [_record(point.payload or {}) for point in points]
            if offset is None:
                return Sounds(found)

    def record_count(self) -> int:
        """Number of sounds that are wholly there."""
        return self._count(_matching(_KIND, [_RECORD]))

    def frame_count(self, record: IndexedSound) -> int:
        """Number of frames that are there of one sound."""
        return self._count(_matching(_SOURCE, [record.number]))

    def point_count(self) -> int:
        """Number of records and frames, whether their sound is known or not."""
        return self._count(None)

    def _count(self, chosen: models.Filter | None) -> int:
        return self._connection.call(
            partial(self._client.count, self._name, count_filter=chosen, exact=True)
        ).count

    def frame_counts(self, most: int) -> dict[int, int]:
        """Numbers of frames by the number of their sound, known or not, of at most `most`."""
        found = self._connection.call(
            partial(self._client.facet, self._name, _SOURCE, limit=most, exact=True)
        )
        return {int(hit.value): hit.count for hit in found.hits}

    def discard(self, numbers: Sequence[int]) -> None:
        """Removes the frames of the sounds so numbered."""
        self._connection.call(
            partial(
                self._client.delete,
                self._name,
                models.FilterSelector(filter=_matching(_SOURCE, numbers)),
                wait=True,
                ordering=models.WriteOrdering.STRONG,
            )
        )

    def nearest(
        self,
        queries: NDArray[np.float32],
        limit: int,
        mode: SearchMode,
        numbered: Callable[[int], int],
        checkpoint: Checkpoint,
    ) -> Hits:
        """As Engine; `numbered` gives the position of a sound by its number here, -1 for none."""
        params = models.SearchParams(
            exact=mode is SearchMode.EXACT, hnsw_ef=max(SEARCH_BREADTH, limit)
        )
        requests = [
            models.QueryRequest(
                query=models.NearestQuery(nearest=vector),
                using=self._searched,
                limit=limit,
                params=params,
                with_vector=[_FRAME],
                with_payload=True,
            )
            for vector in queries.tolist()
        ]
        answers = self._connection.call(
            partial(self._client.query_batch_points, self._name, requests), checkpoint
        )
        found = [answer.points for answer in answers]
        return Hits(
            points=self._columns([point for points in found for point in points], numbered),
            counts=np.array([len(points) for points in found]),
            worst_scores=np.array([points[-1].score if points else np.nan for points in found]),
        )

    def pages(self, numbered: Callable[[int], int], checkpoint: Checkpoint) -> Iterator[Points]:
        """Every frame, in pages of bounded size; `numbered` as for `nearest`."""
        offset = None
        while True:
            points, offset = self._connection.call(
                partial(
                    self._client.scroll,
                    self._name,
                    scroll_filter=models.Filter(must_not=_matching(_KIND, [_RECORD]).must),
                    limit=self._batch,
                    offset=offset,
                    with_vectors=[_FRAME],
                ),
                checkpoint,
            )
            yield self._columns(points, numbered)
            if offset is None:
                return

    def _columns(self, points: Sequence[Any], numbered: Callable[[int], int]) -> Points:
        payloads = [point.payload or {} for point in points]
        frames = np.array([point.vector[_FRAME] for point in points], np.float32)
        return Points(
            ids=[str(point.id) for point in points],
            numbers=np.array([numbered(payload[_SOURCE]) for payload in payloads], np.int64),
            start_samples=np.array([payload[_START] for payload in payloads], np.uint64),
            frames=frames.reshape(-1, len(self._spec.feature_names)),
        )


def _matching(field: str, values: Sequence[int] | Sequence[str]) -> models.Filter:
    match = models.MatchAny(any=list(values))  # type: ignore[arg-type]
    return models.Filter(must=[models.FieldCondition(key=field, match=match)])


def _record_id(key: str) -> str:
    return str(uuid.UUID(bytes=hashlib.sha256(f"sound\n{key}".encode()).digest()[:16]))


def _record(payload: dict[str, Any]) -> IndexedSound:
    source = SourceRef(
        payload["key"], payload["sha256"], payload["size_bytes"], payload["media_type"]
    )
    return IndexedSound(source, payload["frame_count"], payload["frames_sha256"])
