"""Moments of descriptor frames, merged exactly over files (Chan, Golub & LeVeque, 1979)."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.audio.track import DescriptorTrack, FloatArray
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
        return cls.of_blocks(track.feature_names, lambda: [track.values])

    @classmethod
    def of_blocks(
        cls, feature_names: tuple[str, ...], blocks: Callable[[], Iterable[FloatArray]]
    ) -> "FeatureStatistics":
        """The moments of a track whose frames come in blocks (n, features), asked for twice.

        Of several features, where the track is cut changes no bit: numpy adds rows one by one.
        """
        count = 0
        total = zeros = np.zeros(len(feature_names))
        for block in blocks():
            total = _added(total if count else None, block.astype(np.float64, order="C"))
            count += len(block)
        if not count:
            return cls(feature_names, 0, zeros, zeros)
        means = total / count
        squares: Moments | None = None
        for block in blocks():
            squares = _added(squares, np.square(block.astype(np.float64, order="C") - means))
        return cls(feature_names, count, means, zeros if squares is None else squares / count)

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


def _added(total: Moments | None, rows: Moments) -> Moments:
    """The sum so far and these rows, added in the order in which numpy adds all rows at once."""
    if total is not None:
        rows = np.concatenate([total[np.newaxis], rows])
    added: Moments = np.add.reduce(rows, axis=0)
    return added
