"""Crops of recordings, made louder, softer, inverted, faster or slower where a corpus is small.

The published trainings change nothing of what they crop, and neither do the defaults here.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.audio.resampling import resample
from services.errors import InvalidInputError

# Speeds are fractions of it: resampling wants whole rates, and nobody hears 0.2 cents.
SPEED_STEPS = 10_000
MAX_SPEED = 0.5
# Sound that is resampled beyond both ends of a crop, so that no filter rings at a cut.
MARGIN_SAMPLES = 256


@dataclass(frozen=True)
class Augmentation:
    """How crops may differ from the recording. Raises InvalidInputError for impossible values.

    What is off draws nothing from the random generator.
    """

    gain_decibels: float = 0.0
    """Each crop is up to so much louder or softer, but never louder than full scale; 0 is off."""
    polarity: bool = False
    """Whether half of the crops are inverted."""
    speed: float = 0.0
    """Each crop is up to this share faster or slower, its pitch with it; 0.03 is half a semitone;
    0 is off."""

    def __post_init__(self) -> None:
        if not 0 <= self.gain_decibels < math.inf:
            raise InvalidInputError(
                f"augmentation: a gain of {self.gain_decibels} dB is negative or not finite",
                culprit="gain_decibels",
            )
        if not 0 <= self.speed <= MAX_SPEED:
            raise InvalidInputError(
                f"augmentation: a speed of {self.speed} is not between 0 and {MAX_SPEED}",
                culprit="speed",
            )

    @property
    def is_off(self) -> bool:
        """Whether crops are the recording's own samples."""
        return not (self.gain_decibels or self.polarity or self.speed)

    def crop(
        self,
        samples: NDArray[np.float32],
        length: int,
        random: np.random.Generator,
        *,
        peak: float = 1.0,
    ) -> NDArray[np.float32]:
        """(length,) float32 from a random place of `samples` / `peak`, (n,) float32 in [-1, 1].

        Every place is equally likely. Shorter sounds are heard whole, and followed by zeros. What
        is drawn follows from the state of `random` alone. Reads no more of `samples` than it
        needs, so that they may lie in a file.
        """
        if self.speed:
            part = self._at_another_speed(samples, length, random)
        else:
            start = _place(samples.size, length, random)
            part = samples[start : start + length]
        crop = np.zeros(length, np.float32)
        crop[: part.size] = part
        if peak != 1:
            crop /= np.float32(peak)
        if not self.is_off:
            crop *= self._factor(crop, random)
        return crop

    def _at_another_speed(
        self, samples: NDArray[np.float32], length: int, random: np.random.Generator
    ) -> NDArray[np.float32]:
        rate = round(SPEED_STEPS * (1 + random.uniform(-self.speed, self.speed)))
        span = math.ceil(length * rate / SPEED_STEPS)
        start = _place(samples.size, span, random)
        before = min(start, MARGIN_SAMPLES)
        part = samples[start - before : start + span + MARGIN_SAMPLES]
        first = round(before * SPEED_STEPS / rate)
        # Linear interpolation is ten times as fast, but 15 dB above its own errors at 10 kHz.
        return resample(part[:, None], rate, SPEED_STEPS)[first : first + length, 0]

    def _factor(self, crop: NDArray[np.float32], random: np.random.Generator) -> np.float32:
        factor = 1.0
        if self.gain_decibels:
            factor = 10 ** (random.uniform(-self.gain_decibels, self.gain_decibels) / 20)
        peak = float(np.abs(crop).max(initial=0))
        # Neither gain nor the resampler's overshoot may leave what a generator can answer.
        factor = min(factor, 1 / peak) if peak else factor
        inverted = self.polarity and bool(random.integers(2))
        return np.float32(-factor if inverted else factor)


def _place(size: int, length: int, random: np.random.Generator) -> int:
    spare = size - length
    return int(random.integers(spare + 1)) if spare > 0 else 0
