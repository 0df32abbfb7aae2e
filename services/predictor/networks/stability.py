"""Linear autoregressions that do not explode: the roots of an unstable one are shrunk.

An autoregression is stable if all eigenvalues of its companion matrix are smaller than 1
(Lütkepohl, 2005, section 2.1.1). With lag k times f^k, each of them is multiplied by f.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGEST_RADIUS = 0.999


def stabilised(weights: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Weights with roots of at most LARGEST_RADIUS, and the factor that the roots were shrunk by.

    `weights` are (order, features before, features after), those of the last frame first; stable
    ones stay as they are, with the factor 1.
    """
    shrunk = min(LARGEST_RADIUS / max(_radius(weights), 1e-12), 1.0)
    powers = shrunk ** np.arange(1, len(weights) + 1)
    return weights * powers[:, np.newaxis, np.newaxis], shrunk


def _radius(weights: NDArray[np.float64]) -> float:
    """Largest modulus of the roots: of the eigenvalues of the companion matrix."""
    order, features, _ = weights.shape
    companion: NDArray[Any] = np.eye(order * features, k=-features)
    companion[:features] = np.concatenate([each.T for each in weights], axis=1)
    return float(np.abs(np.linalg.eigvals(companion)).max())
