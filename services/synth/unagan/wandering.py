"""Noise that wanders: an Ornstein-Uhlenbeck process (Uhlenbeck & Ornstein, 1930), column by column.

White noise is new in every column, so over some seconds all of it is alike, and only the recurrent
blocks can remember what is being sung. A channel that wanders tells the generator for seconds, and
the encoder can read it back: so one seed sings otherwise than another after a few hundred steps.
"""

import math

import numpy as np
import torch
from torch import Tensor


def wandering(z: Tensor, channels: int, memory_columns: float) -> Tensor:
    """Makes the first `channels` of white noise wander; the others, and the variance, stay.

    Args:
        z: (B, z_dim, T) normally distributed, on the CPU.
        channels: how many, at most z_dim; 0 gives `z` itself back.
        memory_columns: after so many columns 1/e of a value is left.

    Returns:
        (B, z_dim, T) of the same dtype, each value normally distributed.
    """
    if not channels:
        return z
    kept = math.exp(-1 / memory_columns)
    fresh = math.sqrt(1 - kept**2)
    # Time first, in float64: each column is then one addition of whole rows, the same everywhere.
    white = np.array(z[:, :channels].permute(2, 0, 1).numpy(), np.float64, order="C")
    for column in range(1, len(white)):
        white[column] = kept * white[column - 1] + fresh * white[column]
    slow = torch.from_numpy(white).permute(1, 2, 0).to(z.dtype)
    return torch.cat([slow, z[:, channels:]], dim=1)
