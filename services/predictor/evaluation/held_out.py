"""Which recordings predictors may be compared on: those kept back from the training of them all."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from services.audio.track import DescriptorTrack
from services.errors import InvalidInputError, NotFoundError, SettingsMismatchError
from services.predictor.evaluation.material import Material

Configs = Mapping[str, Mapping[str, Any]]
"""config.json of each model by its id."""


def divided(configs: Configs, tracks: Sequence[DescriptorTrack]) -> Material:
    """Training and held-out tracks, as the trainings of all these models divided them.

    The names of what was kept back stand in a config's `training.validation_files`; of a single
    file its end was, and a window's length before it belongs to neither part. A model of foreign
    training has no such names, and follows the others.

    Raises NotFoundError, naming the first that is missing, if a file that was kept back is not
    among the tracks; SettingsMismatchError, naming two models, if they kept back different files;
    and InvalidInputError if no model says what it kept back.
    """
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
    if set(kept_back) == names:
        return _divided_within(tracks[0], [configs[model] for model in known])
    return Material.of(
        [track for track in tracks if track.source not in kept_back],
        [track for track in tracks if track.source in kept_back],
    )


def _divided_within(track: DescriptorTrack, configs: Sequence[Mapping[str, Any]]) -> Material:
    """A single track, at its end: what every training kept back, and what each one heard."""
    share = min(float(config["training"]["validation_share"]) for config in configs)
    gap = max(int(config["window_frames"]) for config in configs)
    held = round(share * track.frame_count)
    heard = track.frame_count - gap - held
    if held < 1 or heard < 1:
        raise InvalidInputError(
            f"{track.source}: {track.frame_count} frames are too few to be judged by",
            culprit=track.source,
        )
    return Material.of(
        [replace(track, values=track.values[:heard])],
        [replace(track, values=track.values[track.frame_count - held :])],
    )


def refuse_other_features(configs: Configs, tracks: Sequence[DescriptorTrack]) -> None:
    """Raises SettingsMismatchError, naming both sides, if rate or hop of a model are others."""
    first = tracks[0]
    for model, config in configs.items():
        theirs = int(config["sample_rate_hertz"]), int(config["hop_length_samples"])
        if theirs != (first.sample_rate_hertz, first.hop_length_samples):
            raise SettingsMismatchError(
                f"{model} was trained at {theirs[0]} Hz with a hop of {theirs[1]}, "
                f"{first.source} is described at {first.sample_rate_hertz} Hz with a hop of "
                f"{first.hop_length_samples}",
                culprit=model,
            )
