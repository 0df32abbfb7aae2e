"""The losses of UNAGAN: BEGAN (Berthelot, Schumm & Metz, 2017) and cycle regularization."""

from dataclasses import dataclass

import torch
from torch import Tensor


def distance(first: Tensor, second: Tensor) -> Tensor:
    """Mean absolute difference of tensors of one shape, 0-d: of a redrawing, or of a cycle."""
    return torch.mean(torch.abs(first - second))


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
