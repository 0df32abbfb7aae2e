"""One collection's frames in one Qdrant Edge shard, a folder on disk.

A point is a frame: its raw vector, where the metric needs it also the vector to search by, and as
payload the number of its sound and its first sample.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qdrant_edge import (
    CountRequest,
    Distance,
    EdgeConfig,
    EdgeOptimizersConfig,
    EdgeShard,
    EdgeVectorParams,
    FieldCondition,
    Filter,
    HnswIndexConfig,
    Point,
    Query,
    QueryBatchRequest,
    QueryRequest,
    RangeFloat,
    ScrollRequest,
    SearchParams,
    UpdateOperation,
)

from services.audio.match_table import SourceRef
from services.errors import CorruptObjectError
from services.query.distances import for_engine
from services.query.index import Checkpoint, CollectionSpec, Metric, Scaling, SearchMode
from services.query.search import BUILD_BREADTH, GRAPH_FROM_KIB, LINKS, SEARCH_BREADTH, Hits, Points

_DISTANCES = {
    Metric.EUCLIDEAN: Distance.Euclid,
    Metric.COSINE: Distance.Cosine,
    Metric.MANHATTAN: Distance.Manhattan,
}
_FRAME, _SEARCH = "frame", "search"
_SOURCE, _START = "source", "start_sample"

_POINTS_PER_UPDATE = 1024
_POINTS_PER_PAGE = 4096


class FrameShard:
    """Open by one process at a time, and used by one thread at a time. An Engine of a Search."""

    def __init__(self, path: Path, spec: CollectionSpec, *, create: bool) -> None:
        self._path = path
        self._spec = spec
        self._count: int | None = None
        # Distances on raw frames need no second vector.
        raw = spec.scaling is Scaling.NONE and spec.metric is not Metric.COSINE
        self._searched = _FRAME if raw else _SEARCH
        if create:
            path.mkdir(parents=True)
            self._shard = EdgeShard.create(str(path), self._config())
        else:
            self._shard = EdgeShard.load(str(path))

    def _config(self) -> EdgeConfig:
        def vector(distance: Distance, links: int) -> EdgeVectorParams:
            return EdgeVectorParams(
                size=len(self._spec.feature_names),
                distance=distance,
                hnsw_config=HnswIndexConfig(
                    m=links, ef_construct=BUILD_BREADTH, full_scan_threshold=GRAPH_FROM_KIB
                ),
            )

        vectors = {_FRAME: vector(Distance.Euclid, links=0)}
        vectors[self._searched] = vector(_DISTANCES[self._spec.metric], links=LINKS)
        return EdgeConfig(
            vectors=vectors,
            optimizers=EdgeOptimizersConfig(
                default_segment_number=1, indexing_threshold=GRAPH_FROM_KIB
            ),
        )

    def close(self) -> None:
        """Writes out what is pending and lets go of the files."""
        self._shard.close()

    def count(self) -> int:
        """Number of frames; looked up once, since that takes as long as there are frames."""
        if self._count is None:
            self._count = int(self._shard.count(CountRequest(exact=True)))
        return self._count

    def discard_from(self, number: int) -> None:
        """Removes the frames of the sounds numbered `number` and above."""
        self._count = None
        numbers = FieldCondition(key=_SOURCE, range=RangeFloat(gte=number))
        self._shard.update(UpdateOperation.delete_points_by_filter(Filter(must=[numbers])))
        self._shard.flush()

    def add(
        self,
        number: int,
        source: SourceRef,
        frames: NDArray[np.float32],
        checkpoint: Checkpoint,
    ) -> None:
        """Takes in the frames (n, features) of the sound numbered `number`; durable on return."""
        prefix = hashlib.sha256(f"{source.key}\n{source.sha256}".encode()).hexdigest()[:24]
        searched = for_engine(self._spec, frames)
        for first in range(0, len(frames), _POINTS_PER_UPDATE):
            checkpoint()
            batch = slice(first, first + _POINTS_PER_UPDATE)
            columns = {_FRAME: frames[batch].tolist(), self._searched: searched[batch].tolist()}
            points = [
                Point(
                    # A UUID: 96 bits of content hash, 32 bits of frame number.
                    f"{prefix}{frame:08x}",
                    dict(zip(columns, vectors, strict=True)),
                    {_SOURCE: number, _START: frame * self._spec.hop_length_samples},
                )
                for frame, vectors in enumerate(zip(*columns.values(), strict=True), first)
            ]
            self._shard.update(UpdateOperation.upsert_points(points))
        self._shard.flush()
        if self._count is not None:
            self._count += len(frames)

    def finished(self) -> bool:
        """Whether the graph is built, or there are too few frames for one."""
        kib = 4 * len(self._spec.feature_names) * self.count() >> 10
        return kib < GRAPH_FROM_KIB or self._shard.info().indexed_vectors_count >= self.count()

    def finish(self) -> None:
        """Builds the graph; durable on return."""
        self._shard.optimize()
        self._shard.flush()

    def nearest(self, queries: NDArray[np.float32], limit: int, mode: SearchMode) -> Hits:
        """See Engine."""
        params = SearchParams(exact=mode is SearchMode.EXACT, hnsw_ef=max(SEARCH_BREADTH, limit))
        found = self._shard.query_batch(
            QueryBatchRequest(
                [
                    QueryRequest(
                        limit=limit,
                        query=Query.Nearest(vector, using=self._searched),
                        with_vector=[_FRAME],
                        with_payload=True,
                        params=params,
                    )
                    for vector in queries.tolist()
                ]
            )
        )
        return Hits(
            points=self._columns([point for points in found for point in points]),
            counts=np.array([len(points) for points in found]),
            # None at all where every score overflowed.
            worst_scores=np.array([points[-1].score if points else np.nan for points in found]),
        )

    def pages(self) -> Iterator[Points]:
        """See Engine."""
        offset = None
        while True:
            page, offset = self.page(offset)
            yield page
            if offset is None:
                return

    def page(self, offset: Any) -> tuple[Points, Any]:
        """The points from `offset` on, None for the first, and where the next page begins."""
        points, following = self._shard.scroll(
            ScrollRequest(
                offset=offset, limit=_POINTS_PER_PAGE, with_vector=[_FRAME], with_payload=True
            )
        )
        return self._columns(points), following

    def _columns(self, points: Sequence[Any]) -> Points:
        try:
            frames = np.array([point.vector[_FRAME] for point in points], np.float32)
            payloads = [point.payload for point in points]
            numbers = np.array([payload[_SOURCE] for payload in payloads], np.int64)
            starts = np.array([payload[_START] for payload in payloads], np.uint64)
        except (LookupError, TypeError) as error:
            raise CorruptObjectError(
                f"{self._path} holds points without their frame, sound or place: "
                "`demiurge doctor --deep --mend` rebuilds their collection",
                culprit=str(self._path),
            ) from error
        return Points(
            ids=[str(point.id) for point in points],
            numbers=numbers,
            start_samples=starts,
            frames=frames.reshape(-1, len(self._spec.feature_names)),
        )
