"""One track continued by a predictor: columns by name, settings compared, long answers split."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from services.audio.track import DescriptorTrack
from services.errors import DemiurgeError, SettingsMismatchError
from services.predictor.port import Checkpoint, FloatArray, Predictor, never_stop


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
    _refuse_answer(predictor, values, steps)
    continued = replace(track, feature_names=predictor.feature_names, values=values)
    return continued.ordered(track.feature_names)


def _refuse_answer(predictor: Predictor, values: FloatArray, steps: int) -> None:
    """Raises DemiurgeError: the sound is not to be blamed for what a predictor answers."""
    wanted = (steps, len(predictor.feature_names))
    if not isinstance(values, np.ndarray):
        problem = f"with {type(values).__name__}, not an array"
    elif values.dtype != np.float32:
        problem = f"{values.dtype} values, not float32"
    elif values.shape != wanted:
        problem = f"values of shape {values.shape}, not {wanted}"
    elif not np.isfinite(values).all():
        first = int(np.argmin(np.isfinite(values).all(axis=1)))
        problem = f"values that are not finite, from frame {first} on"
    else:
        return
    raise DemiurgeError(f"this {predictor.architecture} answered {problem}")


def pieces(track: DescriptorTrack, largest_bytes: int) -> Iterator[DescriptorTrack]:
    """The track in pieces of whole frames, each of at most `largest_bytes` of values."""
    frames = max(largest_bytes // (track.values.itemsize * len(track.feature_names)), 1)
    for first in range(0, track.frame_count, frames):
        yield replace(track, values=track.values[first : first + frames])
