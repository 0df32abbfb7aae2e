"""What predictors are compared on: training and held-out tracks, and places to go on from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from services.audio.statistics import FeatureStatistics
from services.audio.track import DescriptorTrack
from services.errors import InvalidInputError
from services.predictor.deltas import REACH, WIDTH, names_with_deltas, statics_of, with_deltas
from services.predictor.port import FloatArray
from services.predictor.training.corpus import refuse_mixed_framings, regular
from services.predictor.training.settings import PredictorTraining


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
    outlier_deviations: float = PredictorTraining.outlier_deviations
    """As in training: a frame with a feature further from its file's mean is an outlier."""

    @classmethod
    def of(
        cls,
        training: Sequence[DescriptorTrack],
        held_out: Sequence[DescriptorTrack],
        *,
        unheard: bool = False,
        outlier_deviations: float = PredictorTraining.outlier_deviations,
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
        refuse_mixed_framings([*training, *held_out])
        return cls(
            tuple(track.ordered(names) for track in training),
            tuple(track.ordered(names) for track in held_out),
            unheard,
            outlier_deviations,
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
            inside = replace(track, values=track.values[self.regular(track)])
            part = FeatureStatistics.of(inside)
            whole = whole.merged(part) if whole else part
        assert whole is not None  # noqa: S101 - there is at least one track
        return whole

    def regular(self, track: DescriptorTrack) -> NDArray[np.bool_]:
        """Whether each frame of a track is no outlier, (frames,)."""
        return regular(track.values, self.outlier_deviations)

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
        inside = [self.regular(track) for track in self.held_out]
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
