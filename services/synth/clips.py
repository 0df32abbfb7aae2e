"""The recordings that a model learns, and which of them are kept back to judge it by."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from services.errors import InvalidInputError


@dataclass(frozen=True, eq=False)
class Clip:
    """Mono sound of one source file.

    `samples` is (samples,) float32, finite, in [-1, 1] and not empty, at the rate of the model's
    settings. Raises InvalidInputError naming the clip otherwise.
    """

    name: str
    samples: NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.samples.ndim != 1 or self.samples.dtype != np.float32 or not self.samples.size:
            raise InvalidInputError(
                f"{self.name}: {self.samples.dtype} of shape {self.samples.shape} is no mono sound",
                culprit=self.name,
            )
        if not np.isfinite(self.samples).all():
            raise InvalidInputError(
                f"{self.name}: holds samples that are not finite", culprit=self.name
            )


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
    return (
        [*whole, replace(last, samples=last.samples[:start])],
        [replace(last, samples=last.samples[start:])],
    )
