"""One collection's frames in one Qdrant Edge shard, a folder on disk.

A point is a frame: its raw vector, where the metric needs it also the vector to search by, and as
payload the number of its sound and its first sample. Qdrant's scores are float32; they choose
candidates, and `distances` decides among them.
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
from services.query.distances import (
    Candidates,
    distances,
    for_engine,
    scaled,
    score_error,
)
from services.query.index import CollectionSpec, Metric, Scaling, SearchMode

_DISTANCES = {
    Metric.EUCLIDEAN: Distance.Euclid,
    Metric.COSINE: Distance.Cosine,
    Metric.MANHATTAN: Distance.Manhattan,
}
_FRAME, _SEARCH = "frame", "search"
_SOURCE, _START = "source", "start_sample"

# Candidates fetched beyond k, so that float32 ties at the edge can be told from neighbours.
_MARGIN = 32
_POINTS_PER_UPDATE = 1024
_POINTS_PER_ANSWER = 16384
_POINTS_PER_PAGE = 4096

# The graph: links per node, and how many nodes are kept in view while building and searching.
_LINKS = 16
_BUILD_BREADTH = 128
_SEARCH_BREADTH = 128
# Below this many KiB of vectors a plain scan is as fast as a graph.
_GRAPH_FROM_KIB = 1024


class FrameShard:
    """Open by one process at a time, and used by one thread at a time."""

    def __init__(self, path: Path, spec: CollectionSpec, *, create: bool) -> None:
        self._spec = spec
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
                    m=links, ef_construct=_BUILD_BREADTH, full_scan_threshold=_GRAPH_FROM_KIB
                ),
            )

        vectors = {_FRAME: vector(Distance.Euclid, links=0)}
        vectors[self._searched] = vector(_DISTANCES[self._spec.metric], links=_LINKS)
        return EdgeConfig(
            vectors=vectors,
            optimizers=EdgeOptimizersConfig(
                default_segment_number=1, indexing_threshold=_GRAPH_FROM_KIB
            ),
        )

    def close(self) -> None:
        """Writes out what is pending and lets go of the files."""
        self._shard.close()

    def count(self) -> int:
        """Number of frames."""
        return int(self._shard.count(CountRequest(exact=True)))

    def discard_from(self, number: int) -> None:
        """Removes the frames of the sounds numbered `number` and above."""
        numbers = FieldCondition(key=_SOURCE, range=RangeFloat(gte=number))
        self._shard.update(UpdateOperation.delete_points_by_filter(Filter(must=[numbers])))
        self._shard.flush()

    def add(self, number: int, source: SourceRef, frames: NDArray[np.float32]) -> None:
        """Takes in the frames (n, features) of the sound numbered `number`; durable on return."""
        prefix = hashlib.sha256(f"{source.key}\n{source.sha256}".encode()).hexdigest()[:24]
        searched = for_engine(self._spec, frames)
        for first in range(0, len(frames), _POINTS_PER_UPDATE):
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

    def finish(self) -> None:
        """Builds the graph; durable on return."""
        self._shard.optimize()
        self._shard.flush()

    def search(
        self, queries: NDArray[np.float32], k: int, mode: SearchMode, ranks: NDArray[np.int64]
    ) -> Candidates:
        """The k nearest frames of each query (n, features), in order.

        `ranks` maps the number of a sound to the position of its key in sorted order. k must be
        within 1 and the number of frames.
        """
        count = self.count()
        limit = min(k + _MARGIN, count)
        step = max(1, _POINTS_PER_ANSWER // limit)
        answers = [
            self._nearest(queries[first : first + step], k, limit, mode, ranks)
            for first in range(0, len(queries), step)
        ]
        nearest = Candidates.concatenated([found for found, _ in answers])
        certain = np.concatenate([sure for _, sure in answers])
        if limit < count and not certain.all():
            nearest.put(~certain, self._scanned(queries[~certain], k, ranks))
        return nearest

    def _nearest(
        self,
        queries: NDArray[np.float32],
        k: int,
        limit: int,
        mode: SearchMode,
        ranks: NDArray[np.int64],
    ) -> tuple[Candidates, NDArray[np.bool_]]:
        """The k nearest among the engine's candidates, and whether they surely are (n,)."""
        exact = mode is SearchMode.EXACT
        wanted = scaled(self._spec, queries)
        hits = self._shard.query_batch(
            QueryBatchRequest(
                [
                    QueryRequest(
                        limit=limit,
                        query=Query.Nearest(vector, using=self._searched),
                        with_vector=[_FRAME],
                        with_payload=True,
                        params=SearchParams(exact=exact, hnsw_ef=max(_SEARCH_BREADTH, limit)),
                    )
                    for vector in for_engine(self._spec, queries).tolist()
                ]
            )
        )
        counts = np.array([len(found) for found in hits])
        there = np.arange(limit) < counts[:, None]
        candidates = Candidates.missing(len(hits), limit)
        frames, numbers, starts = self._columns([point for found in hits for point in found])
        candidates.distances[there] = distances(
            self._spec.metric,
            np.repeat(wanted, counts, axis=0),
            scaled(self._spec, frames),
        )
        candidates.ranks[there] = ranks[numbers]
        candidates.start_samples[there] = starts
        nearest = candidates.nearest(k)
        if not exact:
            return nearest, counts >= k
        # None at all where every score overflowed.
        scores = np.array([found[-1].score if found else np.nan for found in hits], np.float64)
        if self._spec.metric is Metric.COSINE:
            scores = 1.0 - scores
        # Frames that the engine left out lie beyond its last candidate, within its own error.
        horizon = scores - score_error(self._spec.metric, wanted, scores)
        return nearest, (counts == limit) & (horizon > nearest.distances[:, -1])

    def _scanned(
        self, queries: NDArray[np.float32], k: int, ranks: NDArray[np.int64]
    ) -> Candidates:
        """The k nearest by looking at every frame: for ties that the engine cannot resolve."""
        wanted = scaled(self._spec, queries)
        best = [Candidates.missing(1, k) for _ in wanted]
        for frames, numbers, starts in self._pages():
            values, sources = scaled(self._spec, frames), ranks[numbers]
            for row, query in enumerate(wanted):
                found = distances(self._spec.metric, query, values)
                near = found <= best[row].distances[0, -1]
                page = Candidates(found[None, near], sources[None, near], starts[None, near])
                best[row] = best[row].joined(page).nearest(k)
        return Candidates.concatenated(best)

    def _pages(
        self,
    ) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.uint64]]]:
        offset = None
        while True:
            points, offset = self._shard.scroll(
                ScrollRequest(
                    offset=offset, limit=_POINTS_PER_PAGE, with_vector=[_FRAME], with_payload=True
                )
            )
            yield self._columns(points)
            if offset is None:
                return

    def _columns(
        self, points: Sequence[Any]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.uint64]]:
        """Raw frames (n, features), numbers of sounds (n,) and start samples (n,) of points."""
        frames = np.array([point.vector[_FRAME] for point in points], np.float32)
        payloads = [point.payload for point in points]
        return (
            frames.reshape(-1, len(self._spec.feature_names)),
            np.array([payload[_SOURCE] for payload in payloads], np.int64),
            np.array([payload[_START] for payload in payloads], np.uint64),
        )
