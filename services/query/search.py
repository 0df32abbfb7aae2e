"""Exact neighbours from an engine that scores in float32: it proposes, float64 decides.

An engine's nearest points are candidates. Where its error leaves open whether it left out a nearer
one, it is asked for more of them; where these are still too few, every point is looked at. Points
whose sound is not known, left by a crash, are never answered.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from services.audio.match_table import SourceRef
from services.query.distances import Candidates, distances, for_engine, scaled, score_error
from services.query.index import (
    Checkpoint,
    CollectionSpec,
    Metric,
    Neighbors,
    PointPage,
    SearchMode,
)

# The graph: links per node, and how many nodes are kept in view while building and searching.
# Predicted frames lie beside the database, not in it, so searches need a wide view: 512 finds
# 99 of 100 nearest of 150 000 real frames in one and a half times what 128 takes to find 89.
LINKS = 16
BUILD_BREADTH = 128
SEARCH_BREADTH = 512
# Below this many KiB of vectors a plain scan is as fast as a graph.
GRAPH_FROM_KIB = 1024

# Candidates fetched beyond k, so that float32 ties at the edge can be told from neighbours.
_MARGIN = 32
# How many times more are fetched where that was too few: a second of silence is dozens of ties.
_WIDER = 10
_POINTS_PER_ANSWER = 16384
# Frames times queries times features that an engine compares within a fraction of a second.
_PRODUCTS_PER_ANSWER = 200_000_000


@dataclass(frozen=True, eq=False)
class Points:
    """Points as an engine holds them, in columns of equal length.

    `numbers` int64 say which sound a point is of, -1 for none that is known; `start_samples` is
    uint64, `frames` raw float32 (points, features).
    """

    ids: Sequence[str]
    numbers: NDArray[np.int64]
    start_samples: NDArray[np.uint64]
    frames: NDArray[np.float32]

    def page(self, sources: Sequence[SourceRef]) -> PointPage:
        """The same by key; `sources` are the sounds by number."""
        keys = (sources[n].key if 0 <= n < len(sources) else None for n in self.numbers.tolist())
        return PointPage(tuple(self.ids), tuple(keys), self.start_samples, self.frames)


@dataclass(frozen=True, eq=False)
class Hits:
    """An engine's answer to several queries: all their points, one query's after the other's.

    `counts` says how many points each query has, `worst_scores` the engine's score of its last one.
    """

    points: Points
    counts: NDArray[np.int64]
    worst_scores: NDArray[np.float64]


class Engine(Protocol):
    """What a search needs of an engine."""

    def nearest(self, queries: NDArray[np.float32], limit: int, mode: SearchMode) -> Hits:
        """The `limit` best points for each query (n, features), scaled already, the best first."""

    def pages(self) -> Iterator[Points]:
        """Every point, in pages of bounded size."""


@dataclass(frozen=True, eq=False)
class Search:
    """The frames of `sources`, `point_count` in all, in an engine that holds at least these."""

    spec: CollectionSpec
    engine: Engine
    sources: Sequence[SourceRef]
    point_count: int
    checkpoint: Checkpoint

    def neighbors(self, queries: NDArray[np.float32], k: int, mode: SearchMode) -> Neighbors:
        """The k nearest frames of each query; k must be within 1 and `point_count`."""
        by_key = sorted(range(len(self.sources)), key=lambda number: self.sources[number].key)
        ranks = np.empty(len(by_key), np.int64)
        ranks[by_key] = np.arange(len(by_key))
        limit = min(k + _MARGIN, self.point_count)
        nearest, certain = self._asked(queries, k, limit, mode, ranks)
        # More from a graph would still be some of the nearest only.
        if not certain.all() and mode is SearchMode.EXACT and limit < self.point_count:
            rows = ~certain
            limit = min(_WIDER * limit, self.point_count)
            more, sure = self._asked(queries[rows], k, limit, mode, ranks)
            nearest.put(rows, more)
            certain[rows] = sure
        if not certain.all():
            nearest.put(~certain, self._scanned(queries[~certain], k, ranks))
        return Neighbors(
            sources=tuple(self.sources[number] for number in by_key),
            source_indices=nearest.ranks.astype(np.uint32),
            start_samples=nearest.start_samples,
            distances=nearest.distances,
        )

    def _asked(
        self,
        queries: NDArray[np.float32],
        k: int,
        limit: int,
        mode: SearchMode,
        ranks: NDArray[np.int64],
    ) -> tuple[Candidates, NDArray[np.bool_]]:
        """As `_proposed`, some queries at a time."""
        products = self.point_count * len(self.spec.feature_names)
        step = max(1, min(_POINTS_PER_ANSWER // limit, _PRODUCTS_PER_ANSWER // products))
        answers = []
        for first in range(0, len(queries), step):
            self.checkpoint()
            answers.append(self._proposed(queries[first : first + step], k, limit, mode, ranks))
        nearest = Candidates.concatenated([found for found, _ in answers])
        return nearest, np.concatenate([sure for _, sure in answers])

    def _proposed(
        self,
        queries: NDArray[np.float32],
        k: int,
        limit: int,
        mode: SearchMode,
        ranks: NDArray[np.int64],
    ) -> tuple[Candidates, NDArray[np.bool_]]:
        """The k nearest among the engine's candidates, and whether they surely are (queries,)."""
        wanted = scaled(self.spec, queries)
        hits = self.engine.nearest(for_engine(self.spec, queries), limit, mode)
        points, counts = hits.points, hits.counts
        there = np.arange(limit) < counts[:, None]
        candidates = Candidates.missing(len(queries), limit)
        known = self._is_known(points)
        candidates.distances[there] = np.where(
            known,
            distances(
                self.spec.metric,
                np.repeat(wanted, counts, axis=0),
                scaled(self.spec, points.frames),
            ),
            np.inf,
        )
        candidates.ranks[there] = ranks[np.where(known, points.numbers, 0)]
        candidates.start_samples[there] = points.start_samples
        nearest = candidates.nearest(k)
        found = np.isfinite(candidates.distances).sum(axis=1)
        if mode is SearchMode.APPROXIMATE:
            return nearest, found >= k
        scores = hits.worst_scores
        if self.spec.metric is Metric.COSINE:
            scores = 1.0 - scores
        # Frames that the engine left out lie beyond its last candidate, within its own error.
        horizon = scores - score_error(self.spec.metric, wanted, scores)
        beyond = (counts == limit) & (horizon > nearest.distances[:, -1])
        return nearest, beyond | (found == self.point_count)

    def _scanned(
        self, queries: NDArray[np.float32], k: int, ranks: NDArray[np.int64]
    ) -> Candidates:
        """The k nearest by looking at every frame: for ties that the engine cannot resolve."""
        wanted = scaled(self.spec, queries)
        best = [Candidates.missing(1, k) for _ in wanted]
        for points in self.engine.pages():
            known = self._is_known(points)
            values = scaled(self.spec, points.frames[known])
            sources, starts = ranks[points.numbers[known]], points.start_samples[known]
            for row, query in enumerate(wanted):
                self.checkpoint()
                found = distances(self.spec.metric, query, values)
                near = found <= best[row].distances[0, -1]
                page = Candidates(found[None, near], sources[None, near], starts[None, near])
                best[row] = best[row].joined(page).nearest(k)
        return Candidates.concatenated(best)

    def _is_known(self, points: Points) -> NDArray[np.bool_]:
        return (points.numbers >= 0) & (points.numbers < len(self.sources))
