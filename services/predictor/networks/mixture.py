"""A density over the next frame: a mixture of Gaussians with coupled features.

Mixture density networks (Bishop, 1994) that feed themselves (Graves, 2013, arXiv:1308.0850); the
temperature is that of Ha & Eck (2017, arXiv:1704.03477). A network tells a mixture for each frame.
"""

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional

# In standard deviations of a feature: digital silence is constant, and its density has no bound.
SMALLEST_SCALE = 0.02
LARGEST_SCALE = 10.0
# Where scales begin, near the change from one frame to the next in music.
FIRST_SCALE = 0.3

# The inverse of a smaller one is infinite in float32; it draws the likeliest component alone.
LEAST_TEMPERATURE = 1e-30


def parameter_count(features: int, mixtures: int) -> int:
    """Numbers that a network tells for one mixture."""
    return features * (features - 1) // 2 + mixtures * (1 + 2 * features)


@dataclass(frozen=True, eq=False)
class Mixture:
    """Mixtures over frames of E features, K components each, in float32 or finer.

    A frame x is decoupled to y = coupling (x - centre), and each component is a Gaussian with a
    diagonal scale over y. The coupling is lower triangular with ones on its diagonal, so the
    density of y is that of x, and all components have full covariances.
    """

    centre: Tensor
    """(…, E)"""
    coupling: Tensor
    """(…, E, E)"""
    log_weights: Tensor
    """(…, K)"""
    means: Tensor
    """(…, K, E), of y"""
    scales: Tensor
    """(…, K, E), of y"""

    @classmethod
    def told(cls, centre: Tensor, parameters: Tensor, mixtures: int) -> "Mixture":
        """Around `centre` (…, E), as a network's (…, `parameter_count`) tell."""
        finest = torch.promote_types(parameters.dtype, torch.float32)
        centre, parameters = centre.to(finest), parameters.to(finest)
        *sizes, features = centre.shape
        pairs = features * (features - 1) // 2
        coupled, logits, means, raw = torch.split(
            parameters, [pairs, mixtures, mixtures * features, mixtures * features], dim=-1
        )
        rows, columns = torch.tril_indices(features, features, -1, device=centre.device)
        coupling = torch.eye(features, dtype=finest, device=centre.device)
        coupling = coupling.expand(*sizes, features, features).clone()
        coupling[..., rows, columns] = coupled
        offset = math.log(math.expm1(FIRST_SCALE - SMALLEST_SCALE))
        scales = SMALLEST_SCALE + functional.softplus(raw + offset)
        return cls(
            centre=centre,
            coupling=coupling,
            log_weights=logits.log_softmax(dim=-1),
            means=means.reshape(*sizes, mixtures, features),
            scales=scales.clamp(max=LARGEST_SCALE).reshape(*sizes, mixtures, features),
        )

    def at(self, position: int) -> "Mixture":
        """The mixtures at one position of the second axis, frames of (B, F)."""
        return Mixture(
            **{each.name: getattr(self, each.name)[:, position] for each in fields(self)}
        )

    def log_density(self, frames: Tensor) -> Tensor:
        """Nats of (…, E): (…)."""
        # Not a matrix product: autocast would round it to bfloat16.
        away = (self.coupling * (frames - self.centre).unsqueeze(-2)).sum(dim=-1).unsqueeze(-2)
        exponents = ((away - self.means) / self.scales).square().sum(dim=-1) / -2
        logs = exponents - self.scales.log().sum(dim=-1)
        normal = frames.shape[-1] * math.log(2 * math.pi) / 2
        return (self.log_weights + logs).logsumexp(dim=-1) - normal

    def mean(self) -> Tensor:
        """The expected frame, (…, E)."""
        away = (self.log_weights.exp().unsqueeze(-1) * self.means).sum(dim=-2)
        return self._frame(away)

    def drawn(self, uniform: Tensor, normal: Tensor, temperature: float) -> Tensor:
        """A frame (…, E) from evenly distributed (…,) and normally distributed (…, E) numbers.

        At temperature 0 it is the mean of the most probable component, whatever the numbers.
        """
        if temperature == 0:
            chosen = self.log_weights.argmax(dim=-1)
        else:
            likeliest = self.log_weights.amax(dim=-1, keepdim=True)
            relative = (self.log_weights - likeliest) / max(temperature, LEAST_TEMPERATURE)
            cumulated = relative.softmax(dim=-1).cumsum(dim=-1)
            # The last sum may round to less than the number that was drawn.
            chosen = (cumulated[..., :-1] < uniform.unsqueeze(-1)).sum(dim=-1)
        index = chosen[..., None, None].expand(*chosen.shape, 1, self.means.shape[-1])
        away = self.means.gather(-2, index).squeeze(-2)
        if temperature:
            scales = self.scales.gather(-2, index).squeeze(-2)
            away = away + math.sqrt(temperature) * scales * normal
        return self._frame(away)

    def _frame(self, away: Tensor) -> Tensor:
        """The frame that is decoupled to `away`."""
        solved: Tensor = torch.linalg.solve_triangular(
            self.coupling, away.unsqueeze(-1), upper=False, unitriangular=True
        )
        return self.centre + solved.squeeze(-1)
