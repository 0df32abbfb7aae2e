"""The frames that a predictor learns from: z-scored, cut into windows, some held out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from services.audio.statistics import FeatureStatistics
from services.audio.track import DescriptorTrack
from services.errors import InvalidInputError, SettingsMismatchError
from services.predictor.deltas import REACH

# At least: deltas on either side of the gap look this far, and must not have seen the same frames.
_LEAST_GAP = 2 * REACH
# Held-out files may overshoot their share by this, so that one long file does not block all others.
_OVERSHOOT = 1.5


@dataclass(frozen=True, eq=False)
class Windows:
    """Every window of a set of tracks.

    `frames` is (frames, features) float32, the tracks' z-scores end to end; `counts` (frames,) is
    0 where a frame is an outlier and else 1; `starts` (windows,) points at the first frame of each
    window, and no window reaches over the end of its track.
    """

    frames: NDArray[np.float32]
    counts: NDArray[np.float32]
    starts: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Corpus:
    """Training part and held-out part; statistics are of the training part alone."""

    training: Windows
    validation: Windows
    statistics: FeatureStatistics
    sample_rate_hertz: int
    hop_length_samples: int
    held_out: tuple[str, ...]
    """Sources that were held out, whole or by their end."""
    held_out_start: int
    """The frame at which the held-out end of a divided sound begins; 0 if whole ones are."""
    too_short: tuple[str, ...]
    """Sources that hold no window and were left out."""

    @classmethod
    def of(
        cls,
        tracks: Sequence[DescriptorTrack],
        *,
        window_frames: int,
        frames_ahead: int,
        outlier_deviations: float,
        validation_share: float,
        seed: int,
        feature_names: Sequence[str] | None = None,
    ) -> "Corpus":
        """Cuts `tracks` into windows of `window_frames` + `frames_ahead` frames.

        Columns are put in the order of `feature_names`, else in string order. Whole tracks are
        held out, drawn by `seed`; of a single one the end, a window's length after the training
        part. Raises SettingsMismatchError if tracks differ in features, rate or hop, and
        InvalidInputError, naming the shortest length that would do, if there is nothing to learn
        from.
        """
        length = window_frames + frames_ahead
        names = _shared_names(tracks, feature_names)
        usable = [track for track in tracks if track.frame_count >= length]
        if not usable:
            longest = max(track.frame_count for track in tracks)
            raise InvalidInputError(
                f"no sound is long enough to learn from: the longest has {longest} frames, the "
                f"shortest need is {length} ({window_frames} of window, {frames_ahead} ahead) in "
                "each of two sounds: give longer sounds or a shorter window",
                culprit="window_size",
            )
        held_out_start = 0
        if len(usable) > 1:
            training, validation = _split_files(tracks, usable, validation_share, seed)
        else:
            gap = max(window_frames, _LEAST_GAP)
            training, validation = _split_end(
                usable[0], len(tracks) - 1, length, gap, validation_share
            )
            held_out_start = usable[0].frame_count - validation[0].frame_count
        held_out = tuple(track.source for track in validation)
        training, validation = (
            [track for track in part if track.frame_count >= length]
            for part in (training, validation)
        )
        statistics = _statistics(training, names, outlier_deviations)
        return cls(
            training=_windows(training, statistics, outlier_deviations, length),
            validation=_windows(validation, statistics, outlier_deviations, length),
            statistics=statistics,
            sample_rate_hertz=tracks[0].sample_rate_hertz,
            hop_length_samples=tracks[0].hop_length_samples,
            held_out=held_out,
            held_out_start=held_out_start,
            too_short=tuple(track.source for track in tracks if track.frame_count < length),
        )


def _shared_names(
    tracks: Sequence[DescriptorTrack], feature_names: Sequence[str] | None
) -> tuple[str, ...]:
    """The columns of all tracks, of which none is copied for that."""
    if not tracks:
        raise InvalidInputError("there are no sounds to learn from", culprit="tracks")
    first = tracks[0]
    names = tuple(feature_names or sorted(first.feature_names))
    refuse_mixed_framings(tracks)
    for track in tracks:
        replace(track, values=track.values[:0]).ordered(names)
    return names


def refuse_mixed_framings(tracks: Sequence[DescriptorTrack]) -> None:
    """Raises SettingsMismatchError, naming two tracks, if they differ in rate or hop."""
    first = tracks[0]
    for track in tracks:
        theirs = (track.sample_rate_hertz, track.hop_length_samples)
        if theirs != (first.sample_rate_hertz, first.hop_length_samples):
            raise SettingsMismatchError(
                f"{track.source}: {theirs[0]} Hz with a hop of {theirs[1]} does not fit "
                f"{first.source}: {first.sample_rate_hertz} Hz with a hop of "
                f"{first.hop_length_samples}",
                culprit=track.source,
            )


def _split_files(
    tracks: Sequence[DescriptorTrack], usable: list[DescriptorTrack], share: float, seed: int
) -> tuple[list[DescriptorTrack], list[DescriptorTrack]]:
    """Training and held-out part, each with at least one usable track.

    What is held out follows from all tracks, however long a window is: models of different windows
    can then be compared on what none of them has heard. Where that leaves nothing usable in one of
    the parts, the usable tracks alone are divided.
    """
    parts: tuple[list[DescriptorTrack], list[DescriptorTrack]] = ([], [])
    for candidates in (list(tracks), usable):
        held = _drawn([track.frame_count for track in candidates], share, seed)
        parts = (
            [track for i, track in enumerate(candidates) if i not in held],
            [track for i, track in enumerate(candidates) if i in held],
        )
        if all(any(track in usable for track in part) for part in parts):
            break
    return parts


def _drawn(lengths: list[int], share: float, seed: int) -> set[int]:
    """Places drawn until they hold the share of the whole; the shortest if none is that short.

    However large the share, one place is left.
    """
    wanted = share * sum(lengths)
    order: list[int] = np.random.default_rng(seed).permutation(len(lengths)).tolist()
    drawn: set[int] = set()
    for i in order:
        held = sum(lengths[each] for each in drawn)
        if len(drawn) == len(lengths) - 1:
            break
        if held < wanted and held + lengths[i] <= _OVERSHOOT * wanted:
            drawn.add(i)
    return drawn or {min(order, key=lengths.__getitem__)}


def _split_end(
    track: DescriptorTrack, others: int, length: int, gap: int, share: float
) -> tuple[list[DescriptorTrack], list[DescriptorTrack]]:
    """Training part, a gap that belongs to neither, held-out end."""
    least = 2 * length + gap
    if track.frame_count < least:
        beside = f"; the {others} others have fewer than {length}" if others else ""
        raise InvalidInputError(
            f"{track.source or 'the only sound'}: {track.frame_count} frames are too few to learn "
            f"from and to check on: the shortest need for a single sound is {least}, "
            f"{length} each for training and validation and {gap} between{beside}: give more or "
            "longer sounds or a shorter window",
            culprit=track.source,
        )
    end = max(length, round(share * track.frame_count))
    end = min(end, track.frame_count - gap - length)
    return (
        [replace(track, values=track.values[: track.frame_count - gap - end])],
        [replace(track, values=track.values[track.frame_count - end :])],
    )


def regular(values: NDArray[np.float32], deviations: float) -> NDArray[np.bool_]:
    """Whether every feature of each frame of a track is within `deviations` of the track's mean.

    `values` are (frames, features). 0 deviations means that all frames are regular.
    """
    if not deviations:
        return np.ones(len(values), dtype=np.bool_)
    exact = values.astype(np.float64)
    distance = np.abs(exact - exact.mean(axis=0))
    inside: NDArray[np.bool_] = (distance <= deviations * exact.std(axis=0)).all(axis=1)
    return inside


def _statistics(
    tracks: list[DescriptorTrack], names: tuple[str, ...], deviations: float
) -> FeatureStatistics:
    """Of all frames that count. What never changes has a variance of 0, without rounding errors."""
    zeros = np.zeros(len(names))
    whole = FeatureStatistics(names, 0, zeros, zeros)
    for track in tracks:
        values = track.ordered(names).values
        counted = replace(track, feature_names=names, values=values[regular(values, deviations)])
        whole = whole.merged(FeatureStatistics.of(counted))
    rounding = np.square(np.finfo(np.float32).eps * whole.means)
    return replace(whole, variances=np.where(whole.variances > rounding, whole.variances, 0.0))


def _windows(
    tracks: list[DescriptorTrack], statistics: FeatureStatistics, deviations: float, length: int
) -> Windows:
    """Track by track, so that hours need little more memory than their z-scores.

    Raises InvalidInputError if all frames are outliers.
    """
    names = statistics.feature_names
    total = sum(track.frame_count for track in tracks)
    frames = np.empty((total, len(names)), dtype=np.float32)
    counts = np.empty(total, dtype=np.float32)
    starts: list[NDArray[np.int64]] = []
    start = 0
    for track in tracks:
        stop = start + track.frame_count
        values = track.ordered(names).values
        frames[start:stop] = (values - statistics.means) / statistics.scales
        counts[start:stop] = regular(values, deviations)
        starts.append(np.arange(start, stop - length + 1))
        start = stop
    if not counts.any():
        raise InvalidInputError(
            f"{tracks[0].source or 'the sound'}: every frame is further than {deviations:g} "
            "standard deviations from the mean: give a larger number, or 0, which counts all",
            culprit="outlier_deviations",
        )
    return Windows(frames, counts, np.concatenate(starts))
