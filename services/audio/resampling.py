"""Another rate, or one channel, for a whole sound (soxr, https://sourceforge.net/p/soxr)."""

import math
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from services.errors import InvalidInputError

# What librosa.load uses too: descriptors made from other rates agree with the published ones.
_QUALITY = "HQ"


def resample(
    samples: NDArray[np.floating[Any]], from_rate: int, to_rate: int
) -> NDArray[np.float32]:
    """(frames, channels) at `from_rate` → (ceil(frames * to_rate / from_rate), channels) float32.

    The same samples where the rates are equal. Raises InvalidInputError if a rate is not positive.
    """
    if from_rate <= 0 or to_rate <= 0:
        raise InvalidInputError(f"cannot resample from {from_rate} Hz to {to_rate} Hz")
    samples = np.asarray(samples, dtype=np.float32)
    if from_rate == to_rate:
        return samples
    frames = math.ceil(len(samples) * to_rate / from_rate)
    if not frames:
        return samples[:0]
    resampled = soxr.resample(samples, from_rate, to_rate, quality=_QUALITY)[:frames]
    # soxr may end a sample short of the length asked for.
    return np.pad(resampled, ((0, frames - len(resampled)), (0, 0)))


def to_mono(samples: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """(frames, channels) → (frames,) float32: the mean of the channels."""
    total = samples[:, 0].astype(np.float32)
    # One pass a channel: numpy's mean over so short an axis takes longer than decoding the file.
    for channel in range(1, samples.shape[1]):
        total += samples[:, channel]
    return total / np.float32(samples.shape[1])
