"""The optimizer of all trainings here: Adam (Kingma & Ba, 2015, arXiv:1412.6980)."""

import torch
from torch import nn


def adam(
    network: nn.Module,
    learning_rate: float,
    device: torch.device,
    betas: tuple[float, float] = (0.9, 0.999),
) -> torch.optim.Adam:
    """Adam of the parameters of a network on `device`, which no step of it waits for."""
    return torch.optim.Adam(
        network.parameters(),
        lr=learning_rate,
        betas=betas,
        # Without a kernel of its own, a scaled step would wait for the GPU.
        fused=device.type == "cuda" or None,
    )
