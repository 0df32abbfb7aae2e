"""What predictors are compared on: training and held-out tracks, and places to go on from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from services.audio.statistics import FeatureStatistics
from services.audio.track import DescriptorTrack
from services.errors import InvalidInputError, SettingsMismatchError
from services.predictor.deltas import REACH, WIDTH, names_with_deltas, statics_of, with_deltas
from services.predictor.port import FloatArray

OUTLIER_DEVIATIONS = 5.0
"""As in training: a frame with a feature further from the mean of its file is an outlier."""


@dataclass(frozen=True)
class Place:
    """One moment of a held-out track: what is before `frame` is heard, the rest is foretold."""

    track: int
    frame: int


@dataclass(frozen=True, eq=False)
class Material:
    """Tracks of the same features in the same order, rate and hop: `Material.of` sees to that."""

    training: tuple[DescriptorTrack, ...]
    held_out: tuple[DescriptorTrack, ...]
    unheard: bool = False
    """Whether no training has heard the held-out tracks, not even to choose its best step."""

    @classmethod
    def of(
        cls,
        training: Sequence[DescriptorTrack],
        held_out: Sequence[DescriptorTrack],
        *,
        unheard: bool = False,
    ) -> "Material":
        """The tracks with columns in one order: of MFCCs that of their numbers, else by name.

        Raises InvalidInputError if one of the parts is empty, and SettingsMismatchError, naming
        two tracks, if features, rate or hop differ.
        """
        for part, tracks in (("training", training), ("held-out", held_out)):
            if not tracks:
                raise InvalidInputError(f"there are no {part} tracks to compare predictors on")
        first = training[0]
        statics = statics_of(first.feature_names)
        names = names_with_deltas(statics) if statics else tuple(sorted(first.feature_names))
        for track in (*training, *held_out):
            theirs = (track.sample_rate_hertz, track.hop_length_samples)
            if theirs != (first.sample_rate_hertz, first.hop_length_samples):
                raise SettingsMismatchError(
                    f"{track.source}: {theirs[0]} Hz with a hop of {theirs[1]} does not fit "
                    f"{first.source}: {first.sample_rate_hertz} Hz with a hop of "
                    f"{first.hop_length_samples}",
                    culprit=track.source,
                )
        return cls(
            tuple(track.ordered(names) for track in training),
            tuple(track.ordered(names) for track in held_out),
            unheard,
        )

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Columns of all tracks."""
        return self.training[0].feature_names

    @property
    def frame_rate_hertz(self) -> float:
        """Frames a second."""
        return self.training[0].sample_rate_hertz / self.training[0].hop_length_samples

    @cached_property
    def static_count(self) -> int:
        """How many of the first columns are static coefficients, the rest being their deltas.

        All, where the features are no MFCCs with deltas.
        """
        return len(statics_of(self.feature_names)) or len(self.feature_names)

    @property
    def has_deltas(self) -> bool:
        """Whether the columns are static coefficients, their deltas and their delta-deltas."""
        return self.static_count < len(self.feature_names)

    @cached_property
    def statistics(self) -> FeatureStatistics:
        """Means and variances of the training tracks, outliers left out."""
        whole: FeatureStatistics | None = None
        for track in self.training:
            inside = replace(track, values=track.values[regular(track.values)])
            part = FeatureStatistics.of(inside)
            whole = whole.merged(part) if whole else part
        assert whole is not None  # noqa: S101 - there is at least one track
        return whole

    def scored(self, raw: NDArray[np.floating]) -> NDArray[np.float64]:
        """Raw values (…, features) as z-scores by `statistics`."""
        scores: NDArray[np.float64] = (raw - self.statistics.means) / self.statistics.scales
        return scores

    def places(self, count: int, *, window_frames: int, frames_ahead: int) -> tuple[Place, ...]:
        """Those `places_in` the held-out tracks."""
        return places_in(
            self.held_out, count, window_frames=window_frames, frames_ahead=frames_ahead
        )

    def longest_ahead(self, window_frames: int) -> int:
        """Frames that the longest held-out track has beyond a window."""
        return max(track.frame_count for track in self.held_out) - window_frames

    def windows(self, places: Sequence[Place], window_frames: int) -> FloatArray:
        """The raw frames before each place, (places, window, features) float32.

        A delta looks some frames ahead. The last deltas here do not: they are those of a sound
        that ends with the window, as a run hears it, so that nobody is shown what is to be told.
        Where there are deltas, a place must have 9 frames before it.
        """
        windows = np.stack(
            [
                self.held_out[place.track].values[place.frame - window_frames : place.frame]
                for place in places
            ]
        )
        if self.has_deltas:
            ends = [
                self.held_out[place.track].values[place.frame - WIDTH : place.frame]
                for place in places
            ]
            reached = min(REACH, window_frames)
            ended = with_deltas(np.stack(ends)[:, :, : self.static_count])
            windows[:, -reached:] = ended[:, -reached:]
        return windows

    def futures(self, places: Sequence[Place], frames: int) -> FloatArray:
        """The raw frames from each place on, (places, frames, features) float32."""
        return courses(self.held_out, places, frames)

    def regular_futures(self, places: Sequence[Place], frames: int) -> NDArray[np.bool_]:
        """Whether each of those frames is no outlier, (places, frames)."""
        inside = [regular(track.values) for track in self.held_out]
        return np.stack(
            [inside[place.track][place.frame : place.frame + frames] for place in places]
        )


def places_in(
    tracks: Sequence[DescriptorTrack], count: int, *, window_frames: int, frames_ahead: int
) -> tuple[Place, ...]:
    """At most `count` places, spread evenly over all that have so many frames on both sides.

    The same arguments give the same places. A track that is too short has none.
    """
    rooms = [max(track.frame_count - window_frames - frames_ahead + 1, 0) for track in tracks]
    total = sum(rooms)
    count = min(count, total)
    ends = np.cumsum(rooms)
    ranks = ((np.arange(count) + 0.5) * total / max(count, 1)).astype(np.int64)
    numbers = np.searchsorted(ends, ranks, side="right")
    return tuple(
        Place(int(number), int(rank - (ends[number] - rooms[number]) + window_frames))
        for number, rank in zip(numbers, ranks, strict=True)
    )


def courses(tracks: Sequence[DescriptorTrack], places: Sequence[Place], frames: int) -> FloatArray:
    """The raw frames of the tracks from each place on, (places, frames, features) float32."""
    return np.stack(
        [tracks[place.track].values[place.frame : place.frame + frames] for place in places]
    )


def regular(values: FloatArray) -> NDArray[np.bool_]:
    """Whether every feature of each frame of a track is near enough to the track's mean."""
    exact = values.astype(np.float64)
    distance = np.abs(exact - exact.mean(axis=0))
    inside: NDArray[np.bool_] = (distance <= OUTLIER_DEVIATIONS * exact.std(axis=0)).all(axis=1)
    return inside
