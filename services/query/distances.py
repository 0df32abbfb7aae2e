"""Distances between frames in float64, and who is nearest by them.

An engine's float32 scores choose candidates; what is reported, and in which order, is decided here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.query.index import CollectionSpec, Metric, Scaling

_FLOAT32_MAX = float(np.finfo(np.float32).max)
# Twice the unit roundoff of float32: one for the stored vector, one for each operation on it.
_FLOAT32_EPSILON = float(np.finfo(np.float32).eps)
# Roundings in a score besides one for each feature: scaling, norms, square root.
_EXTRA_ROUNDINGS = 8


def scaled(spec: CollectionSpec, frames: NDArray[np.float32]) -> NDArray[np.float64]:
    """Frames (..., features) as distances see them, by the specification's scaling."""
    values = frames.astype(np.float64)
    if spec.scaling is Scaling.STANDARDIZED and spec.statistics is not None:
        values = (values - spec.statistics.means) / spec.statistics.scales
    return values


def for_engine(spec: CollectionSpec, frames: NDArray[np.float32]) -> NDArray[np.float32]:
    """Frames (n, features) in float32, scaled, as an engine searches them.

    They are clipped to what float32 can hold. For cosine they are brought to length 1 here, in
    float64, because engines leave very short vectors as they are.
    """
    values = scaled(spec, frames)
    if spec.metric is Metric.COSINE:
        lengths = np.sqrt(np.square(values).sum(axis=-1, keepdims=True))
        values = np.divide(values, lengths, out=np.zeros_like(values), where=lengths > 0)
    return np.clip(values, -_FLOAT32_MAX, _FLOAT32_MAX).astype(np.float32)


def distances(
    metric: Metric, queries: NDArray[np.float64], frames: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Distances along the last axis of two arrays that broadcast together.

    A frame without length is at cosine distance 1 from everything. Each row is summed in the same
    order, so that equal frames are at equal distances wherever they are stored.
    """
    match metric:
        case Metric.EUCLIDEAN:
            found = np.sqrt(np.square(frames - queries).sum(axis=-1))
        case Metric.MANHATTAN:
            found = np.abs(frames - queries).sum(axis=-1)
        case Metric.COSINE:
            lengths = np.sqrt(np.square(frames).sum(axis=-1) * np.square(queries).sum(axis=-1))
            products = (frames * queries).sum(axis=-1)
            found = 1.0 - np.divide(
                products, lengths, out=np.zeros_like(products), where=lengths > 0
            )
    return np.asarray(found)


def score_error(
    metric: Metric, queries: NDArray[np.float64], scores: NDArray[np.float64]
) -> NDArray[np.float64]:
    """How far a float32 engine's distance `scores` (queries,) may lie from the truth.

    A frame at distance d of a query q is at most |q| + d long, and each of its features, and each
    step of the sum over them, is rounded once.
    """
    roundings = (queries.shape[-1] + _EXTRA_ROUNDINGS) * _FLOAT32_EPSILON
    match metric:
        case Metric.EUCLIDEAN:
            size = np.sqrt(np.square(queries).sum(axis=-1)) + scores
        case Metric.MANHATTAN:
            size = np.abs(queries).sum(axis=-1) + scores
        case Metric.COSINE:
            size = np.ones_like(scores)
    return np.asarray(roundings * size)


@dataclass(frozen=True, eq=False)
class Candidates:
    """Frames that may be neighbours: three parallel columns, (queries, candidates).

    `ranks` are the positions of their sources' keys in sorted order.
    """

    distances: NDArray[np.float64]
    ranks: NDArray[np.int64]
    start_samples: NDArray[np.uint64]

    @classmethod
    def missing(cls, queries: int, count: int) -> "Candidates":
        """Places for candidates, farther than any frame."""
        shape = (queries, count)
        return cls(np.full(shape, np.inf), np.zeros(shape, np.int64), np.zeros(shape, np.uint64))

    @classmethod
    def concatenated(cls, parts: Sequence["Candidates"]) -> "Candidates":
        """The candidates of several batches of queries."""
        return cls(
            np.concatenate([part.distances for part in parts]),
            np.concatenate([part.ranks for part in parts]),
            np.concatenate([part.start_samples for part in parts]),
        )

    def put(self, rows: NDArray[np.bool_], others: "Candidates") -> None:
        """Replaces the candidates of the queries `rows`."""
        self.distances[rows] = others.distances
        self.ranks[rows] = others.ranks
        self.start_samples[rows] = others.start_samples

    def joined(self, other: "Candidates") -> "Candidates":
        """The candidates of both."""
        return Candidates(
            np.concatenate([self.distances, other.distances], axis=1),
            np.concatenate([self.ranks, other.ranks], axis=1),
            np.concatenate([self.start_samples, other.start_samples], axis=1),
        )

    def nearest(self, k: int) -> "Candidates":
        """The k nearest of each query, in order; equals by (source key, start sample)."""
        order = np.lexsort((self.start_samples, self.ranks, self.distances), axis=-1)[:, :k]
        return Candidates(
            np.take_along_axis(self.distances, order, axis=1),
            np.take_along_axis(self.ranks, order, axis=1),
            np.take_along_axis(self.start_samples, order, axis=1),
        )
