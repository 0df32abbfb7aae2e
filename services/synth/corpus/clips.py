"""The recordings that a model learns, and which of them are kept back to judge it by."""

import hashlib
from collections.abc import Sequence
from dataclasses import InitVar, dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from services.errors import InvalidInputError

# Looked at at once: hours of sound need not fit into memory.
BLOCK_SAMPLES = 1 << 20


@dataclass(frozen=True, eq=False)
class Clip:
    """Mono sound of one source file.

    `samples` is (samples,) float32, finite, in [-1, 1] and not empty, at the rate of the model's
    settings; it may lie in a file. Raises InvalidInputError naming the clip otherwise.
    """

    name: str
    samples: NDArray[np.float32]
    origin: str = ""
    """What the samples follow from: a file's hash, its rate and so on; "" if nobody knows."""
    known_peak: InitVar[float | None] = None
    """The peak, where somebody has looked at all samples before."""
    peak: float = field(init=False)
    """The largest absolute sample."""

    def __post_init__(self, known_peak: float | None) -> None:
        if self.samples.ndim != 1 or self.samples.dtype != np.float32 or not self.samples.size:
            raise InvalidInputError(
                f"{self.name}: {self.samples.dtype} of shape {self.samples.shape} is no mono sound",
                culprit=self.name,
            )
        peak = _peak(self.samples) if known_peak is None else known_peak
        if not np.isfinite(peak):
            raise InvalidInputError(
                f"{self.name}: holds samples that are not finite", culprit=self.name
            )
        object.__setattr__(self, "peak", peak)

    @cached_property
    def identity(self) -> str:
        """What tells these samples from all others: their origin, or else their SHA-256."""
        return self.origin or hashlib.sha256(np.ascontiguousarray(self.samples).data).hexdigest()

    def part(self, start: int, stop: int) -> "Clip":
        """The samples from `start` to before `stop`, of the same name."""
        origin = f"{self.origin}[{start}:{stop}]" if self.origin else ""
        return Clip(self.name, self.samples[start:stop], origin)


def _peak(samples: NDArray[np.float32]) -> float:
    """The largest absolute sample; not finite if any is not."""
    starts = range(0, samples.size, BLOCK_SAMPLES)
    # numpy's maximum hands NaN on, and Python's does not.
    peaks = [np.abs(samples[start : start + BLOCK_SAMPLES]).max() for start in starts]
    return float(np.max(peaks))


def split_clips(
    clips: Sequence[Clip], validation_share: float, seed: int
) -> tuple[list[Clip], list[Clip]]:
    """(training, validation): whole source files, drawn by `seed`; neither side is empty.

    Clips of the same name are of one file and stay together, so that nothing heard in training
    judges it. Of a single file, the end is kept back.

    Raises InvalidInputError if there are no clips, or the share is not between 0 and 1.
    """
    if not clips:
        raise InvalidInputError("no recordings to train on")
    if not 0 < validation_share < 1:
        raise InvalidInputError(f"validation share {validation_share} is not between 0 and 1")
    names = sorted({clip.name for clip in clips})
    if len(names) == 1:
        return _split_end(clips, validation_share)
    held_out = min(max(round(len(names) * validation_share), 1), len(names) - 1)
    drawn = set(np.random.default_rng(seed).permutation(names)[:held_out].tolist())
    return (
        [clip for clip in clips if clip.name not in drawn],
        [clip for clip in clips if clip.name in drawn],
    )


def _split_end(clips: Sequence[Clip], share: float) -> tuple[list[Clip], list[Clip]]:
    *whole, last = clips
    size = last.samples.size
    if size == 1:
        # One sample cannot be divided; a model of it is judged by what it knows.
        return [*whole, last], [last]
    start = min(max(round(size * (1 - share)), 1), size - 1)
    return [*whole, last.part(0, start)], [last.part(start, size)]
