"""A descriptor track: what one sound is like, frame by frame."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from services.errors import InvalidInputError, SettingsMismatchError, WindowTooLongError

FloatArray = NDArray[np.float32]


class Track(Protocol):
    """What is asked of a track that is too long to be held in memory at once."""

    @property
    def feature_names(self) -> tuple[str, ...]:
        """One name a feature."""

    @property
    def sample_rate_hertz(self) -> int:
        """Rate that the sound was described at."""

    @property
    def hop_length_samples(self) -> int:
        """Distance between frames, in samples at that rate."""

    @property
    def source(self) -> str:
        """The sound's name."""

    @property
    def frame_count(self) -> int:
        """Number of frames."""

    @property
    def values(self) -> FloatArray:
        """All frames, (frames, features) float32; to be asked for only if they are few."""

    def column(self, feature: int) -> Iterator[FloatArray]:
        """One feature of all frames, in order, in pieces (n,) float32."""


@dataclass(frozen=True, eq=False)
class DescriptorTrack:
    """The descriptor sequence of one sound.

    `values` is (frames, features) float32, finite; column i is `feature_names[i]`. Frame t is
    centred on sample t * hop_length_samples at sample_rate_hertz.
    """

    feature_names: tuple[str, ...]
    values: FloatArray
    sample_rate_hertz: int
    hop_length_samples: int
    source: str = ""

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.shape[1] != len(self.feature_names):
            raise InvalidInputError(
                f"{self.source or 'track'}: values of shape {self.values.shape} do not fit "
                f"{len(self.feature_names)} feature names",
                culprit=self.source,
            )
        if self.values.dtype != np.float32:
            raise InvalidInputError(
                f"{self.source or 'track'}: values are {self.values.dtype}, not float32",
                culprit=self.source,
            )
        if not np.isfinite(self.values).all():
            raise InvalidInputError(
                f"{self.source or 'track'}: holds values that are not finite",
                culprit=self.source,
            )

    @property
    def frame_count(self) -> int:
        """Number of frames."""
        return int(self.values.shape[0])

    def column(self, feature: int) -> Iterator[FloatArray]:
        """One feature of all frames, as one piece (frames,)."""
        yield np.ascontiguousarray(self.values[:, feature])

    def last(self, frames: int) -> "DescriptorTrack":
        """The last `frames` frames; WindowTooLongError, naming the source, if there are fewer."""
        if not 0 < frames <= self.frame_count:
            raise WindowTooLongError(
                f"{self.source or 'track'} has {self.frame_count} frames, not the {frames} wanted",
                culprit=self.source,
            )
        return replace(self, values=self.values[-frames:])

    def blocks(self, frames: int) -> "Iterator[DescriptorTrack]":
        """The track in pieces of at most `frames` frames, in order."""
        for start in range(0, self.frame_count, frames):
            yield replace(self, values=self.values[start : start + frames])

    @classmethod
    def joined(cls, parts: Sequence["DescriptorTrack"]) -> "DescriptorTrack":
        """One track of all parts' frames, in order; the first names the source.

        Raises SettingsMismatchError unless features, rate and hop agree.
        """
        first = parts[0]
        for part in parts[1:]:
            for setting in ("sample_rate_hertz", "hop_length_samples"):
                if getattr(part, setting) != getattr(first, setting):
                    raise SettingsMismatchError(
                        f"{part.source or 'track'}: {setting} is {getattr(part, setting)}, "
                        f"that of {first.source or 'the first part'} {getattr(first, setting)}",
                        culprit=part.source,
                    )
        rows = [part.ordered(first.feature_names).values for part in parts]
        return replace(first, values=np.concatenate(rows))

    def ordered(self, feature_names: Sequence[str]) -> "DescriptorTrack":
        """The same track with its columns in the order of `feature_names`.

        Raises SettingsMismatchError, naming the features, unless both name the same set.
        """
        wanted = tuple(feature_names)
        if wanted == self.feature_names:
            return self
        missing = [name for name in wanted if name not in self.feature_names]
        unknown = [name for name in self.feature_names if name not in wanted]
        if missing or unknown:
            raise SettingsMismatchError(
                f"{self.source or 'track'}: features do not fit: "
                f"missing {missing or 'none'}, not known {unknown or 'none'}",
                culprit=self.source,
            )
        columns = [self.feature_names.index(name) for name in wanted]
        return replace(
            self, feature_names=wanted, values=np.ascontiguousarray(self.values[:, columns])
        )
