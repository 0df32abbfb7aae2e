"""Moments of descriptor frames, merged exactly over files (Chan, Golub & LeVeque, 1979)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.audio.track import DescriptorTrack
from services.errors import SettingsMismatchError

Moments = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FeatureStatistics:
    """Count, mean and population variance of each feature; `means`, `variances`: (features,)."""

    feature_names: tuple[str, ...]
    frame_count: int
    means: Moments
    variances: Moments

    @classmethod
    def of(cls, track: DescriptorTrack) -> "FeatureStatistics":
        """The moments of one track, in float64."""
        values = track.values.astype(np.float64)
        if not track.frame_count:
            zeros = np.zeros(len(track.feature_names))
            return cls(track.feature_names, 0, zeros, zeros)
        return cls(track.feature_names, track.frame_count, values.mean(axis=0), values.var(axis=0))

    @property
    def scales(self) -> Moments:
        """Standard deviations, with 1 where a feature never changes, so that division is safe."""
        deviations = np.sqrt(self.variances)
        return np.where(deviations > 0, deviations, 1.0)

    def merged(self, other: "FeatureStatistics") -> "FeatureStatistics":
        """The moments of both sets of frames together.

        Raises SettingsMismatchError if the features differ.
        """
        if self.feature_names != other.feature_names:
            raise SettingsMismatchError("statistics of different features cannot be merged")
        count = self.frame_count + other.frame_count
        if not count:
            return self
        share = other.frame_count / count
        difference = other.means - self.means
        return FeatureStatistics(
            self.feature_names,
            count,
            self.means + difference * share,
            self.variances * (1 - share)
            + other.variances * share
            + difference**2 * share * (1 - share),
        )
