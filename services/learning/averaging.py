"""Averaged weights of a generator, which sound steadier than any single step's.

An exponential moving average (Yazıcı et al., 2019, arXiv:1806.04498).
"""

import copy
from typing import TypeVar

import torch
from torch import nn

N = TypeVar("N", bound=nn.Module)


def averaged(network: N) -> N:
    """A copy of `network` for `follow`, which no gradient reaches."""
    return copy.deepcopy(network).requires_grad_(False)


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """Moves `average` towards `network` after update number `step`, the first being 1.

    It remembers some 1 / (1 - decay) updates, and in the beginning no more than a tenth of those
    there were, so that the drawn weights are soon forgotten.
    """
    decay = min(decay, step / (step + 9))
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - decay)
    for mean, buffer in zip(average.buffers(), network.buffers(), strict=True):
        mean.copy_(buffer)
