"""One track continued by a predictor: columns by name, settings compared, long answers split."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from services.audio.track import DescriptorTrack
from services.errors import DemiurgeError, SettingsMismatchError
from services.predictor.port import Checkpoint, Predictor, never_stop


def continue_track(
    predictor: Predictor,
    track: DescriptorTrack,
    steps: int,
    *,
    seed: int = 0,
    temperature: float = 0.0,
    checkpoint: Checkpoint = never_stop,
) -> DescriptorTrack:
    """The `steps` frames after `track`, its columns in the same order.

    Raises SettingsMismatchError, naming both sides, if rate, hop or features do not agree, what
    `Predictor.predict` raises, and DemiurgeError for an answer that is none.
    """
    for name, unit in (("sample_rate_hertz", "Hz"), ("hop_length_samples", "samples")):
        theirs, ours = getattr(track, name), getattr(predictor, name)
        if theirs != ours:
            raise SettingsMismatchError(
                f"{track.source or 'window'}: {name} is {theirs} {unit}, but the predictor was "
                f"trained on {ours} {unit}",
                culprit=track.source or name,
            )
    values = predictor.predict(
        track.ordered(predictor.feature_names).values,
        steps,
        seed=seed,
        temperature=temperature,
        checkpoint=checkpoint,
        source=track.source,
    )
    wanted = (steps, len(predictor.feature_names))
    # A plug-in is anybody's; the sound is not to be blamed for what it answers.
    if values.shape != wanted or values.dtype != np.float32 or not np.isfinite(values).all():
        raise DemiurgeError(
            f"this {predictor.architecture} answered {values.dtype} values of shape "
            f"{values.shape}, not {wanted} finite float32",
            culprit=predictor.architecture,
        )
    continued = replace(track, feature_names=predictor.feature_names, values=values)
    return continued.ordered(track.feature_names)


def pieces(track: DescriptorTrack, largest_bytes: int) -> Iterator[DescriptorTrack]:
    """The track in pieces of whole frames, each of at most `largest_bytes` of values."""
    frames = max(largest_bytes // (track.values.itemsize * len(track.feature_names)), 1)
    for first in range(0, track.frame_count, frames):
        yield replace(track, values=track.values[first : first + frames])
