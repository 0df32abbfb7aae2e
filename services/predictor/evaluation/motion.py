"""How alive trajectories are: their variance, modulation spectrum and drift beside real ones.

A model trained on squared error flattens into a line, which no error tells: its sound is dead.
The modulation spectrum is that of each descriptor's course in time (Atlas and Shamma, 2003).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.errors import InvalidInputError

Array = NDArray[np.float64]

LEAST_FRAMES = 64
FLOOR = 1e-6
"""Ratios below it count as it: -60 dB is dead."""
LOWEST_BIN = 2
"""Below it lies what the mean and the Hann window leak."""
BLOCK_PLACES = 16


@dataclass(frozen=True, eq=False)
class Motion:
    """What is asked of a set of trajectories of the same length, each feature by itself."""

    frames: int
    variances: Array
    """Within a trajectory, about its own mean; the mean over trajectories: (features,)."""
    powers: Array
    """In octaves of modulation frequency, the highest first: (octaves, features)."""
    quarter_variances: Array
    """Within the first and within the last quarter: (2, features)."""
    quarter_means: Array
    """Of the first and of the last quarter: (2, features)."""

    @classmethod
    def of(cls, trajectories: NDArray[np.floating]) -> "Motion":
        """Of z-scores (places, frames, features).

        Raises InvalidInputError for fewer than 64 frames.
        """
        count, frames, features = trajectories.shape
        if frames < LEAST_FRAMES:
            raise InvalidInputError(
                f"{frames} frames are too few to tell how they move; it takes {LEAST_FRAMES}",
                culprit="frames",
            )
        octaves = _octaves(frames)
        powers = np.zeros((len(octaves), features))
        window = np.hanning(frames)[:, np.newaxis]
        for first in range(0, count, BLOCK_PLACES):
            some = trajectories[first : first + BLOCK_PLACES].astype(np.float64)
            centred = some - some.mean(axis=1, keepdims=True)
            spectrum = np.square(np.abs(np.fft.rfft(centred * window, axis=1))).sum(axis=0)
            powers += np.stack([spectrum[bins].sum(axis=0) for bins in octaves])
        quarter = frames // 4
        ends = [trajectories[:, :quarter], trajectories[:, -quarter:]]
        return cls(
            frames=frames,
            variances=_variances(trajectories),
            powers=powers / count,
            quarter_variances=np.stack([_variances(end) for end in ends]),
            quarter_means=np.stack([end.mean(axis=(0, 1), dtype=np.float64) for end in ends]),
        )

    def beside(self, real: "Motion", frame_rate_hertz: float) -> dict[str, float]:
        """Ratios to the motion of real trajectories, which must be as long; 1 is as alive.

        - `variance_ratio`: the mean over features of the ratio of variances; beside it the
          `…_least` and `…_greatest` of a feature;
        - `spectrum_ratio_<from>_to_<to>_hz`: the same of the power in each octave, but the
          geometric mean over features;
        - `spectrum_distance`: the mean over octaves and features of the absolute logarithm of the
          ratios of power; 0.18 is a fifth;
        - `drift_variance`: the variance within the last quarter over that within the first,
          averaged over features, divided by the same of the real ones: below 1 it dies down;
        - `drift_mean`: how far the mean of all trajectories moves from the first quarter to the
          last one, in standard deviations: the root mean square over features.
        """
        ratios = _ratios(self.variances, real.variances)
        powers = _ratios(self.powers, real.powers)
        drift = self.quarter_means[1] - self.quarter_means[0]
        dying = _ratios(self.quarter_variances[1], self.quarter_variances[0]).mean()
        dying_really = _ratios(real.quarter_variances[1], real.quarter_variances[0]).mean()
        figures = {
            "variance_ratio": float(ratios.mean()),
            "variance_ratio_least": float(ratios.min()),
            "variance_ratio_greatest": float(ratios.max()),
            "spectrum_distance": float(np.abs(np.log(powers)).mean()),
            "drift_variance": float(dying / dying_really),
            "drift_mean": float(np.sqrt(np.square(drift).mean())),
        }
        for name, each in zip(bands(self.frames, frame_rate_hertz), powers, strict=True):
            figures[f"spectrum_ratio_{name}"] = float(np.exp(np.log(each).mean()))
        return figures


def bands(frames: int, frame_rate_hertz: float) -> list[str]:
    """The octaves of trajectories of that length by name, as "5.38_to_10.8_hz"."""
    edges = band_edges(frames, frame_rate_hertz)
    return [f"{low:.3g}_to_{high:.3g}_hz" for low, high in edges]


def band_edges(frames: int, frame_rate_hertz: float) -> list[tuple[float, float]]:
    """From where to where each octave reaches, in hertz; the highest first."""
    highest = frame_rate_hertz / 2
    return [
        (highest / 2 ** (number + 1), highest / 2**number)
        for number in range(len(_octaves(frames)))
    ]


def _octaves(frames: int) -> Sequence[NDArray[np.int64]]:
    """The bins of each octave below half the frame rate, as far as they are clear of the mean."""
    nyquist = frames / 2
    octaves = []
    while nyquist / 2 >= LOWEST_BIN:
        low, high = int(np.ceil(nyquist / 2)), int(np.ceil(nyquist))
        octaves.append(np.arange(low, high))
        nyquist /= 2
    return octaves


def _variances(trajectories: NDArray[np.floating]) -> Array:
    variances: Array = trajectories.astype(np.float64).var(axis=1).mean(axis=0)
    return variances


def _ratios(own: Array, real: Array) -> Array:
    """Own over real, both made positive; where real music stands still, so may a prediction."""
    tiny = np.finfo(np.float64).tiny
    still = real <= tiny
    ratios: Array = np.where(still & (own <= tiny), 1.0, own / np.where(still, tiny, real))
    return np.clip(ratios, FLOOR, 1 / FLOOR)
