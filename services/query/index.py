"""The vector index: collections of descriptor frames and their nearest neighbours, behind one port.

A collection is made for one specification, takes in sounds one by one, and is published once it is
complete. Frames are kept raw; scaling happens when distances are taken.
"""

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from services.audio.match_table import SourceRef
from services.audio.statistics import FeatureStatistics
from services.errors import InvalidInputError, SettingsMismatchError


class Metric(enum.Enum):
    """A distance between frames."""

    EUCLIDEAN = "euclidean"
    COSINE = "cosine"
    MANHATTAN = "manhattan"


class Scaling(enum.Enum):
    """What happens to frames before distances are taken."""

    NONE = "none"
    STANDARDIZED = "standardized"


class SearchMode(enum.Enum):
    """EXACT looks at every frame; APPROXIMATE walks a graph and now and then misses a neighbour."""

    EXACT = "exact"
    APPROXIMATE = "approximate"


@dataclass(frozen=True, eq=False)
class CollectionSpec:
    """What a collection is made for; it never changes.

    `statistics` are the moments of the whole database, needed for STANDARDIZED and frozen here;
    they are put in the order of `feature_names`. Raises SettingsMismatchError if they name other
    features, InvalidInputError if they are missing or cannot be used.
    """

    feature_names: tuple[str, ...]
    sample_rate_hertz: int
    hop_length_samples: int
    metric: Metric = Metric.EUCLIDEAN
    scaling: Scaling = Scaling.NONE
    statistics: FeatureStatistics | None = None

    def __post_init__(self) -> None:
        if not self.feature_names or len(set(self.feature_names)) != len(self.feature_names):
            raise InvalidInputError(
                f"a collection needs features that are each named once, not {self.feature_names}",
                culprit="feature_names",
            )
        if self.sample_rate_hertz <= 0 or self.hop_length_samples <= 0:
            raise InvalidInputError(
                f"a rate of {self.sample_rate_hertz} Hz and a hop of {self.hop_length_samples} "
                "samples must both be positive",
                culprit="sample_rate_hertz",
            )
        if self.statistics is not None:
            object.__setattr__(self, "statistics", self._fitted(self.statistics))
        elif self.scaling is Scaling.STANDARDIZED:
            raise InvalidInputError(
                "standardized scaling needs the statistics of the database", culprit="statistics"
            )

    def _fitted(self, statistics: FeatureStatistics) -> FeatureStatistics:
        if set(statistics.feature_names) != set(self.feature_names):
            raise SettingsMismatchError(
                f"the statistics are of {sorted(statistics.feature_names)}, "
                f"the collection of {sorted(self.feature_names)}",
                culprit="statistics",
            )
        columns = [statistics.feature_names.index(name) for name in self.feature_names]
        fitted = replace(
            statistics,
            feature_names=self.feature_names,
            means=np.asarray(statistics.means, np.float64)[columns],
            variances=np.asarray(statistics.variances, np.float64)[columns],
        )
        moments = np.concatenate([fitted.means, fitted.variances])
        if not np.isfinite(moments).all() or (fitted.variances < 0).any() or not fitted.frame_count:
            raise InvalidInputError(
                "the statistics hold no frames, or moments that cannot be", culprit="statistics"
            )
        return fitted

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CollectionSpec) and self._compared() == other._compared()

    def __hash__(self) -> int:
        return hash(self._compared())

    def _compared(self) -> tuple[object, ...]:
        moments = self.statistics and (
            self.statistics.frame_count,
            tuple(self.statistics.means.tolist()),
            tuple(self.statistics.variances.tolist()),
        )
        return (
            self.feature_names,
            self.sample_rate_hertz,
            self.hop_length_samples,
            self.metric,
            self.scaling,
            moments,
        )


@dataclass(frozen=True)
class Collection:
    """What an index knows of one collection; `aliases` are in order."""

    id: str
    spec: CollectionSpec
    point_count: int
    source_count: int
    published: bool
    aliases: tuple[str, ...]
    create_time: datetime


@dataclass(frozen=True, eq=False)
class Neighbors:
    """The k nearest frames of each query, nearest first; equals by (source key, start sample).

    The columns are (queries, k): `source_indices` uint32 into `sources`, `start_samples` uint64,
    `distances` float64.
    """

    sources: tuple[SourceRef, ...]
    source_indices: NDArray[np.uint32]
    start_samples: NDArray[np.uint64]
    distances: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PointPage:
    """Some of the points that an engine holds, in columns of equal length.

    `ids` are the engine's own; `keys` name the points' sounds, None where the index knows no such
    sound; `start_samples` is uint64 (points,), `frames` float32 (points, features), raw.
    """

    ids: tuple[str, ...]
    keys: tuple[str | None, ...]
    start_samples: NDArray[np.uint64]
    frames: NDArray[np.float32]


Checkpoint = Callable[[], None]
"""Raises what stops the work, if the caller no longer wants it."""


def never_stopped() -> None:
    """The checkpoint of a caller that waits for the answer."""


class VectorIndex(ABC):
    """Blocking; safe to call from many threads. What a method acknowledged survives a crash.

    Long methods call `checkpoint` between batches of a fraction of a second; what it raises passes,
    and what was half done is as harmless as after a crash.

    Every method that names a collection raises NotFoundError, naming those there are, if it is
    unknown; `id_or_alias` may be either. Every method raises UnavailableError if the index cannot
    be reached.
    """

    @abstractmethod
    def create(self, collection_id: str, spec: CollectionSpec) -> Collection:
        """Makes an empty collection. The same specification again changes nothing.

        Raises ConflictError if the id is taken by another specification or an alias, and
        InvalidInputError if it is no id (letters, digits, ".", "_" and "-", at most 128).
        """

    @abstractmethod
    def add(
        self,
        collection_id: str,
        source: SourceRef,
        frames: NDArray[np.float32],
        *,
        checkpoint: Checkpoint = never_stopped,
    ) -> int:
        """Takes in the frames of one sound, (frames, features) in the order of the specification.

        Frame t starts at sample t * hop_length_samples. Returns the number of frames; the same
        sound again changes nothing. Raises ConflictError if the sound is there with other content
        or frames, or if the collection is published and the sound is new.
        """

    @abstractmethod
    def publish(
        self,
        collection_id: str,
        alias: str = "",
        *,
        skip_graph: bool = False,
        checkpoint: Checkpoint = never_stopped,
    ) -> Collection:
        """Declares the collection complete, builds its graph and points `alias` at it.

        The alias is taken from whichever collection has it. Publishing twice changes nothing, but
        that the graph which `skip_graph` left out is built; without it, APPROXIMATE is exact.
        Raises NotReadyError for an empty collection and ConflictError if the alias is an id.
        """

    @abstractmethod
    def search(
        self,
        id_or_alias: str,
        queries: NDArray[np.float32],
        k: int,
        mode: SearchMode,
        *,
        checkpoint: Checkpoint = never_stopped,
    ) -> Neighbors:
        """The k nearest frames of each query; `queries` is (queries, features) as in `add`.

        EXACT answers as float64 arithmetic on the raw frames would, whatever the engine's own
        precision; APPROXIMATE may miss neighbours, but its distances are as exact. Raises
        InvalidInputError if k is not within 1 and the number of frames.
        """

    @abstractmethod
    def points(self, collection_id: str) -> Iterator[PointPage]:
        """Every point that the engine really holds, in pages of bounded size, in no known order.

        For audits: points may be missing, double or of no sound, and are answered as they are.
        """

    @abstractmethod
    def describe(self, id_or_alias: str) -> Collection:
        """One collection."""

    def spec(self, id_or_alias: str) -> CollectionSpec:
        """What a collection was made for: less work than describing it, where that counts."""
        return self.describe(id_or_alias).spec

    @abstractmethod
    def list(self) -> list[Collection]:
        """All collections, by id."""

    @abstractmethod
    def delete(self, collection_id: str) -> None:
        """Removes a collection and the aliases that point at it."""

    @abstractmethod
    def close(self) -> None:
        """Lets go of the index; it cannot be used afterwards."""
