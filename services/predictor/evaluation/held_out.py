"""Which recordings predictors may be compared on: those that the training of none has learned from.

Either those that all trainings kept back, by which each chose its best step, or others, which no
training has heard at all.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from services.audio.track import DescriptorTrack
from services.errors import InvalidInputError, NotFoundError, SettingsMismatchError
from services.predictor.evaluation.material import Material
from services.predictor.training.settings import PredictorTraining

Configs = Mapping[str, Mapping[str, Any]]
"""config.json of each model by its id."""


def divided(
    configs: Configs,
    tracks: Sequence[DescriptorTrack],
    unheard: Sequence[DescriptorTrack] = (),
) -> Material:
    """Training and held-out tracks, as the trainings of all these models divided them.

    `unheard` tracks, if given, are the held-out part in the place of what was kept back.

    The names of what was kept back stand in a config's `training.validation_files`. Of a single
    file the end was, from `training.held_out_start` on, and a window's length before it belongs to
    neither part. A model of foreign training has no such names, and follows the others.

    Raises NotFoundError, naming the first that is missing, if a file that was kept back is not
    among the tracks; SettingsMismatchError, naming two models, if they kept back different parts;
    and InvalidInputError if no model says what it kept back, or, naming it, if an unheard track is
    one of the others.
    """
    training, held_out = _as_in_training(configs, tracks)
    deviations = _outlier_deviations(configs)
    if not unheard:
        return Material.of(training, held_out, outlier_deviations=deviations)
    known = {_content(track): track.source for track in tracks}
    for track in unheard:
        if source := known.get(_content(track)):
            raise InvalidInputError(
                f"{track.source} has the descriptors of {source}, which is a recording of the "
                "training: take it out of the unheard ones",
                culprit=track.source,
            )
    return Material.of(training, unheard, unheard=True, outlier_deviations=deviations)


def _outlier_deviations(configs: Configs) -> float:
    """The fewest that any of the trainings took frames for outliers by; 0 if none did.

    Nobody is judged by frames that it was not to learn.
    """
    usual = PredictorTraining.outlier_deviations
    trainings = (config.get("training", {}) for config in configs.values())
    told = [float(training.get("outlier_deviations", usual)) for training in trainings]
    return min((each for each in told if each), default=0.0)


def _content(track: DescriptorTrack) -> bytes:
    """SHA-256 of a track's values, whatever the order of its columns."""
    ordered = track.ordered(sorted(track.feature_names)).values
    return hashlib.sha256(np.ascontiguousarray(ordered).data).digest()


_Parts = tuple[Sequence[DescriptorTrack], Sequence[DescriptorTrack]]
"""Training part and held-out part."""


def _as_in_training(configs: Configs, tracks: Sequence[DescriptorTrack]) -> _Parts:
    if not tracks:
        raise InvalidInputError("no recordings to judge by")
    known = {
        model: tuple(sorted(config["training"]["validation_files"]))
        for model, config in configs.items()
        if config.get("training", {}).get("validation_files")
    }
    if not known:
        raise InvalidInputError(
            f"{', '.join(configs) or 'no model'}: nothing is known of what was kept back in "
            "training: name a model that was trained here beside it"
        )
    first, kept_back = next(iter(known.items()))
    for model, files in known.items():
        if files != kept_back:
            odd = min(set(files) ^ set(kept_back))
            raise SettingsMismatchError(
                f"{first} and {model} kept back different recordings ({odd} is one of them): "
                "evaluate them in two calls, or train them on the same recordings with the same "
                "seed and --validation-share",
                culprit=model,
            )
    names = {track.source for track in tracks}
    if missing := sorted(set(kept_back) - names):
        more = f" and {len(missing) - 1} more" if missing[1:] else ""
        raise NotFoundError(
            f"{missing[0]}{more} was kept back from the training of {first}, and is not among "
            "these recordings: give those that it was trained on",
            culprit=missing[0],
        )
    starts = {model: int(configs[model]["training"].get("held_out_start", 0)) for model in known}
    if any(starts.values()):
        if whole := [model for model, start in starts.items() if not start]:
            part = max(starts, key=starts.__getitem__)
            raise SettingsMismatchError(
                f"{whole[0]} kept back the whole of {kept_back[0]}, {part} its end from frame "
                f"{starts[part]} on: evaluate them in two calls",
                culprit=part,
            )
        track = next(track for track in tracks if track.source in kept_back)
        gap = max(int(configs[model]["window_frames"]) for model in known)
        return _divided_within(track, starts, gap)
    return (
        [track for track in tracks if track.source not in kept_back],
        [track for track in tracks if track.source in kept_back],
    )


def _divided_within(track: DescriptorTrack, starts: Mapping[str, int], gap: int) -> _Parts:
    """A single track, at its end: what every training kept back, and what each one heard."""
    first, last = min(starts.values()), max(starts.values())
    if first - gap < 1 or last >= track.frame_count:
        raise InvalidInputError(
            f"{track.source}: {track.frame_count} frames are too few to be judged by: the end "
            f"from frame {last} on was kept back",
            culprit=track.source,
        )
    return (
        [replace(track, values=track.values[: first - gap])],
        [replace(track, values=track.values[last:])],
    )


def framing_of(configs: Configs) -> tuple[int, int]:
    """Rate in hertz and hop in samples of what all these models know.

    Raises SettingsMismatchError, naming two of them, if they differ.
    """
    framings = {
        model: (int(config["sample_rate_hertz"]), int(config["hop_length_samples"]))
        for model, config in configs.items()
    }
    first, framing = next(iter(framings.items()))
    for model, (rate, hop) in framings.items():
        if (rate, hop) != framing:
            raise SettingsMismatchError(
                f"{first} knows sound at {framing[0]} Hz with a hop of {framing[1]}, {model} at "
                f"{rate} Hz with a hop of {hop}: evaluate them in two calls",
                culprit=model,
            )
    return framing


def refuse_other_tracks(configs: Configs, tracks: Sequence[DescriptorTrack]) -> None:
    """Raises SettingsMismatchError, naming both sides, if rate or hop are not those of a model."""
    model, (rate, hop) = next(iter(configs)), framing_of(configs)
    for track in tracks:
        if (track.sample_rate_hertz, track.hop_length_samples) != (rate, hop):
            raise SettingsMismatchError(
                f"{model} was trained at {rate} Hz with a hop of {hop}, {track.source} is "
                f"described at {track.sample_rate_hertz} Hz with a hop of "
                f"{track.hop_length_samples}",
                culprit=track.source,
            )
