"""The baselines that need no fitting: repeating the last frame, and always telling the mean.

A model that is not better than these has learned nothing of how the sound goes on.
"""

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from services.predictor.deltas import REACH, WIDTH, with_deltas
from services.predictor.evaluation.material import Material
from services.predictor.port import BatchPredictor, Checkpoint, FloatArray

Array = NDArray[np.float64]


class Baseline(BatchPredictor):
    """What all baselines have in common: they speak the features of the material."""

    def __init__(self, material: Material) -> None:
        first = material.training[0]
        self._feature_names = material.feature_names
        self._sample_rate_hertz = first.sample_rate_hertz
        self._hop_length_samples = first.hop_length_samples

    @property
    def architecture(self) -> str:
        """Its name among the others."""
        return type(self).__name__

    @property
    def window_frames(self) -> int:
        """Frames that it looks at."""
        return 1

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Columns, in the order of the material."""
        return self._feature_names

    @property
    def sample_rate_hertz(self) -> int:
        """Rate of the descriptors that it knows."""
        return self._sample_rate_hertz

    @property
    def hop_length_samples(self) -> int:
        """Hop of the descriptors that it knows."""
        return self._hop_length_samples

    @property
    def stochastic(self) -> bool:
        """Whether it draws at random."""
        return False


class StaticBaseline(Baseline):
    """One that knows z-scores of the static coefficients alone; deltas follow from where they go.

    Of features that are no MFCCs with deltas it knows all.
    """

    def __init__(self, material: Material) -> None:
        super().__init__(material)
        self._static_count = material.static_count
        self._has_deltas = material.has_deltas
        self._means = material.statistics.means[: self._static_count]
        self._scales = material.statistics.scales[: self._static_count]

    @property
    def window_frames(self) -> int:
        """What it hears, and what deltas look back."""
        return max(self._heard_frames, WIDTH if self._has_deltas else 1)

    @property
    @abstractmethod
    def _heard_frames(self) -> int:
        """Frames that it tells the next ones from."""

    @abstractmethod
    def _told(self, statics: Array, steps: int, seeds: Sequence[int], temperature: float) -> Array:
        """Continues z-scores (B, window, E) by (B, steps, E)."""

    def _scored(self, frames: FloatArray) -> Array:
        """Z-scores of the statics of raw frames (…, features)."""
        scored: Array = (frames[..., : self._static_count] - self._means) / self._scales
        return scored

    def _continue_many(
        self,
        windows: FloatArray,
        steps: int,
        seeds: Sequence[int],
        temperature: float,
        checkpoint: Checkpoint,  # noqa: ARG002
    ) -> FloatArray:
        statics = self._scored(windows)
        # Deltas look ahead: with some frames more, a longer answer begins as a shorter one.
        further = REACH if self._has_deltas else 0
        told = self._told(statics, steps + further, seeds, temperature)
        if self._has_deltas:
            known = np.concatenate([statics[:, -WIDTH:], told], axis=1)
            whole = with_deltas(known * self._scales + self._means)[:, -steps - REACH : -REACH]
        else:
            whole = told * self._scales + self._means
        return whole.astype(np.float32)


class Persistence(StaticBaseline):
    """Repeats the last frame; the deltas of what stands still soon are 0."""

    @property
    def _heard_frames(self) -> int:
        return 1

    def _told(
        self,
        statics: Array,
        steps: int,
        seeds: Sequence[int],  # noqa: ARG002
        temperature: float,  # noqa: ARG002
    ) -> Array:
        return np.repeat(statics[:, -1:], steps, axis=1)


class TrainingMean(Baseline):
    """Tells the mean of the training tracks, whatever it hears."""

    def __init__(self, material: Material) -> None:
        super().__init__(material)
        self._mean = material.statistics.means.astype(np.float32)

    def _continue_many(
        self,
        windows: FloatArray,
        steps: int,
        seeds: Sequence[int],  # noqa: ARG002
        temperature: float,  # noqa: ARG002
        checkpoint: Checkpoint,  # noqa: ARG002
    ) -> FloatArray:
        return np.tile(self._mean, (len(windows), steps, 1))
