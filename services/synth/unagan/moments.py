"""The moments of log-mels, which a generator is taught to share with its corpus.

After moment matching (Li, Swersky & Zemel, 2015, arXiv:1502.02761). A generator that sings one
steady sound for every noise satisfies BEGAN's balance for long. How bands vary with each other, and
how far they move over several stretches of time, tells such a generator from a corpus at once.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

# Frames: 6, 23, 93 and 372 ms of the published mels. Those that a crop does not hold are left out.
LAGS = (1, 4, 16, 64)
# Standard deviations: a band that hardly moves in the corpus is not held to it more strictly.
MIN_MOVEMENT = 0.02
# Keeps the gradient of a frozen mel finite.
MIN_VARIANCE = 1e-8


@dataclass(frozen=True, eq=False)
class Moments:
    """Of a set of z-scored log-mels, over items and time."""

    mean: Tensor
    """(n_mels,)"""
    covariance: Tensor
    """(n_mels, n_mels)"""
    movements: Tensor
    """(lags, n_mels, n_mels): mean products of the bands' changes over each lag."""

    @classmethod
    def of(cls, mels: Tensor) -> Self:
        """The moments of (B, n_mels, T) float32, with as many lags as T frames hold."""
        mean = mels.mean(dim=(0, 2))
        changes = [mels[..., lag:] - mels[..., :-lag] for lag in LAGS if lag < mels.shape[2]]
        products = [_products(change) for change in changes]
        none = mels.new_zeros((0, mean.numel(), mean.numel()))
        movements = torch.stack(products) if products else none
        return cls(mean, _products(mels - mean[:, None]), movements)

    def to(self, device: torch.device) -> "Moments":
        """The same on a device."""
        return Moments(self.mean.to(device), self.covariance.to(device), self.movements.to(device))

    def distance(self, corpus: "Moments") -> Tensor:
        """How far these are from a corpus's, 0-d, 0 for equal ones.

        Differences are in standard deviations of the corpus; those of movement are relative to how
        far the corpus moves over the same time, which over short times is little.
        """
        far = (self.mean - corpus.mean).abs().mean()
        far = far + (self.covariance - corpus.covariance).abs().mean()
        if len(corpus.movements):
            own, wanted = _deviations(self.movements), _deviations(corpus.movements)
            wanted = wanted.clamp(min=MIN_MOVEMENT)
            scale = wanted[:, :, None] * wanted[:, None, :]
            far = far + ((self.movements - corpus.movements) / scale).abs().mean()
            far = far + (own / wanted - 1).abs().mean()
        return far


def _products(mels: Tensor) -> Tensor:
    """(B, n_mels, T) to (n_mels, n_mels): mean products of each two bands."""
    bands = mels.transpose(0, 1).flatten(1)
    return bands @ bands.T / bands.shape[1]


def _deviations(movements: Tensor) -> Tensor:
    """(lags, n_mels, n_mels) to (lags, n_mels)."""
    return movements.diagonal(dim1=1, dim2=2).clamp(min=MIN_VARIANCE).sqrt()
