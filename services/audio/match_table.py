"""A match table: each frame of a track, answered by its k nearest moments of a database."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.errors import InvalidInputError


@dataclass(frozen=True)
class SourceRef:
    """The stored sound that matches point into; `sha256` is lower-case hexadecimal."""

    key: str
    sha256: str
    size_bytes: int
    media_type: str


@dataclass(frozen=True, eq=False)
class MatchTable:
    """k moments for each frame, nearest first.

    The three columns are (frames, neighbors): `source_indices` uint32 into `sources`,
    `start_samples` uint64 at `sample_rate_hertz`, `distances` float32 by the collection's metric.
    A moment lasts `hop_length_samples`. Raises InvalidInputError if they do not fit together.
    """

    sources: tuple[SourceRef, ...]
    sample_rate_hertz: int
    hop_length_samples: int
    source_indices: NDArray[np.uint32]
    start_samples: NDArray[np.uint64]
    distances: NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.sample_rate_hertz <= 0 or self.hop_length_samples <= 0:
            raise InvalidInputError(
                f"match table: a rate of {self.sample_rate_hertz} Hz and a hop of "
                f"{self.hop_length_samples} samples must both be positive",
                culprit="sample_rate_hertz",
            )
        for name, dtype in (
            ("source_indices", np.uint32),
            ("start_samples", np.uint64),
            ("distances", np.float32),
        ):
            column = getattr(self, name)
            if column.dtype != dtype or column.ndim != 2 or column.shape[1] < 1:
                raise InvalidInputError(
                    f"match table: {name} is {column.dtype} of shape {column.shape}, "
                    f"not {np.dtype(dtype)} of (frames, neighbors)",
                    culprit=name,
                )
            if column.shape != self.source_indices.shape:
                raise InvalidInputError(
                    f"match table: {name} is of shape {column.shape}, "
                    f"source_indices of {self.source_indices.shape}",
                    culprit=name,
                )
        if self.source_indices.size and int(self.source_indices.max()) >= len(self.sources):
            raise InvalidInputError(
                f"match table: source_indices points at source {int(self.source_indices.max())}, "
                f"but there are {len(self.sources)}",
                culprit="source_indices",
            )

    @classmethod
    def joined(cls, tables: Sequence["MatchTable"]) -> "MatchTable":
        """One table of all frames, in order, each source once.

        Raises InvalidInputError unless rate, hop and neighbours agree.
        """
        first = tables[0]
        sources: dict[SourceRef, int] = {}
        indices = []
        for table in tables:
            for name in ("sample_rate_hertz", "hop_length_samples", "neighbors"):
                if getattr(table, name) != getattr(first, name):
                    raise InvalidInputError(
                        f"match tables with {name} {getattr(first, name)} and "
                        f"{getattr(table, name)} cannot be joined",
                        culprit=name,
                    )
            places = [sources.setdefault(source, len(sources)) for source in table.sources]
            indices.append(np.array(places, np.uint32)[table.source_indices])
        return cls(
            tuple(sources),
            first.sample_rate_hertz,
            first.hop_length_samples,
            np.concatenate(indices),
            np.concatenate([table.start_samples for table in tables]),
            np.concatenate([table.distances for table in tables]),
        )

    @property
    def frame_count(self) -> int:
        """Number of frames answered."""
        return int(self.source_indices.shape[0])

    @property
    def neighbors(self) -> int:
        """Neighbours per frame (k)."""
        return int(self.source_indices.shape[1])
