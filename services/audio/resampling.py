"""Another rate, or one channel, for a sound (soxr, https://sourceforge.net/p/soxr)."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from services.errors import InvalidInputError

# What librosa.load uses too: descriptors made from other rates agree with the published ones.
_QUALITY = "HQ"
# Samples of one channel that soxr makes at once; its answer does not depend on it.
_BLOCK_FRAMES = 65_536

FloatArray = NDArray[np.float32]


def resample(samples: NDArray[np.floating[Any]], from_rate: int, to_rate: int) -> FloatArray:
    """(frames, channels) at `from_rate` → (ceil(frames * to_rate / from_rate), channels) float32.

    The same samples where the rates are equal. Raises InvalidInputError if a rate is not positive.
    """
    _check(from_rate, to_rate)
    samples = np.asarray(samples, dtype=np.float32)
    if from_rate == to_rate:
        return samples
    frames = math.ceil(len(samples) * to_rate / from_rate)
    if not frames:
        return samples[:0]
    return _exactly(frames, soxr.resample(samples, from_rate, to_rate, quality=_QUALITY))


def resample_blocks(
    blocks: Iterable[FloatArray], from_rate: int, to_rate: int
) -> Iterator[FloatArray]:
    """The samples of `resample`, bit for bit, for one channel that comes and goes in blocks (n,).

    Memory is that of one block. Raises InvalidInputError if a rate is not positive.
    """
    _check(from_rate, to_rate)
    if from_rate == to_rate:
        yield from blocks
        return
    stream = soxr.ResampleStream(from_rate, to_rate, 1, dtype="float32", quality=_QUALITY)
    step = max(1, _BLOCK_FRAMES * from_rate // max(from_rate, to_rate))
    taken = given = 0
    for block in blocks:
        taken += len(block)
        for start in range(0, len(block), step):
            resampled = stream.resample_chunk(block[start : start + step])
            given += len(resampled)
            yield resampled
    rest = stream.resample_chunk(np.zeros(0, np.float32), last=True)
    yield _exactly(math.ceil(taken * to_rate / from_rate) - given, rest)


def to_mono(samples: NDArray[np.floating[Any]]) -> FloatArray:
    """(frames, channels) → (frames,) float32: the mean of the channels."""
    total = samples[:, 0].astype(np.float32)
    # One pass a channel: numpy's mean over so short an axis takes longer than decoding the file.
    for channel in range(1, samples.shape[1]):
        total += samples[:, channel]
    return total / np.float32(samples.shape[1])


def _check(from_rate: int, to_rate: int) -> None:
    if from_rate <= 0 or to_rate <= 0:
        raise InvalidInputError(f"cannot resample from {from_rate} Hz to {to_rate} Hz")


def _exactly(frames: int, samples: FloatArray) -> FloatArray:
    """soxr may end a sample beside the length asked for."""
    padding = [(0, max(0, frames - len(samples)))] + [(0, 0)] * (samples.ndim - 1)
    return np.pad(samples[:frames], padding)
