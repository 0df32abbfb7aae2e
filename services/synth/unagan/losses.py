"""The losses of UNAGAN: BEGAN (Berthelot, Schumm & Metz, 2017) and cycle regularization."""

from dataclasses import dataclass

import torch
from torch import Tensor


def distance(first: Tensor, second: Tensor) -> Tensor:
    """Mean absolute difference of tensors of one shape, 0-d float32: of a redrawing, or a cycle."""
    return torch.mean(torch.abs(first.float() - second.float()))


def mel_distance(first: Tensor, second: Tensor) -> Tensor:
    """How far apart two sets of log-mels (B, n_mels, T) sound, 0-d, 0 for equal sets.

    Mean over the bands of the differences of mean, standard deviation and mean absolute change
    from frame to frame: the last tells the frozen and the restless from the real.
    """

    def figures(mels: Tensor) -> Tensor:
        bands = mels.transpose(0, 1)
        return torch.stack(
            [
                bands.mean(dim=(1, 2)),
                bands.std(dim=(1, 2), correction=0),
                bands.diff(dim=2).abs().mean(dim=(1, 2)),
            ]
        )

    return (figures(first) - figures(second)).abs().sum(dim=0).mean()


@dataclass
class Equilibrium:
    """Holds real and generated redrawing losses in proportion by weighing the latter with k."""

    gamma: float
    """Wanted ratio of generated to real loss: higher means more variety."""
    lambda_k: float
    """How fast k follows."""
    k: Tensor
    """Weight of the generated loss, 0-d, within [0, 1]."""

    def discriminator_loss(self, real: Tensor, generated: Tensor) -> Tensor:
        """What the discriminator minimises, 0-d."""
        return real - self.k * generated

    def convergence(self, real: Tensor, generated: Tensor) -> Tensor:
        """The global measure of convergence, 0-d: lower is better."""
        return real + torch.abs(self.gamma * real - generated)

    def update(self, real: Tensor, generated: Tensor) -> None:
        """Moves k towards the equilibrium, after a step."""
        balance = (self.gamma * real - generated).detach()
        self.k = torch.clamp(self.k + self.lambda_k * balance, 0.0, 1.0)
