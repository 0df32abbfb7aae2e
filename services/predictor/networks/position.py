"""Sinusoidal position codes, after "Attention Is All You Need" (Vaswani et al., 2017)."""

import math

import torch
from torch import Tensor

LONGEST_WAVE = 10000.0


def position_codes(count: int, dimensions: int, like: Tensor) -> Tensor:
    """Codes of positions 0…count-1: (count, dimensions), of the dtype and device of `like`.

    Sines in the even columns, cosines in the odd ones. They are computed for as many positions as
    are asked for, so no sequence is too long.
    """
    positions = torch.arange(count, dtype=torch.float32, device=like.device).unsqueeze(1)
    waves = torch.arange(0, dimensions, 2, dtype=torch.float32, device=like.device)
    angles = positions * torch.exp(waves * (-math.log(LONGEST_WAVE) / max(dimensions, 1)))
    codes = torch.stack((angles.sin(), angles.cos()), dim=2).flatten(1)
    return codes[:, :dimensions].to(like.dtype)


def with_codes(frames: Tensor, codes: Tensor) -> Tensor:
    """Codes (F, P) beside the features of frames (B, F, E), not added to them: (B, F, E + P)."""
    return torch.cat((frames, codes.expand(frames.shape[0], -1, -1)), dim=2)
