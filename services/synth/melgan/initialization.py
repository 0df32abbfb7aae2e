"""First weights that fit the data (Salimans & Kingma, 2016, arXiv:1602.07868, section 3)."""

from typing import cast

import torch
from torch import Tensor, nn

from services.synth.melgan.generator import Generator

SMALLEST_DEVIATION = 1e-3
QUIETEST = 1e-2
ADDED_SHARE = 0.1


def fit_to_data(
    generator: Generator, mel: Tensor, excitation: Tensor | None, *, loudness: float
) -> None:
    """Scale and shift each convolution, in place, so that its output is centred and of unit size.

    Log-mel spectrograms are far from centred, so a narrow generator would spend its first hundreds
    of steps on that. `mel` and `excitation` are what `forward` takes; `loudness` is the root mean
    square that the sound of the last convolution gets, at least 0.01.
    """

    last_size = max(loudness, QUIETEST)
    if generator.settings.excitation:
        # The excitation is near the sound from the first: what is added to it begins small.
        last_size *= ADDED_SHARE

    def fit(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> Tensor:
        deviation, mean = torch.std_mean(output, dim=(0, 2))
        size = last_size if module is generator.last else 1.0
        # What never changes, as in silence, says nothing of how large it will be.
        gain = torch.where(deviation > SMALLEST_DEVIATION, size / deviation, 1.0)
        across = (1, -1, 1) if isinstance(module, nn.ConvTranspose1d) else (-1, 1, 1)
        module.weight = cast(Tensor, module.weight) * gain.view(across)
        cast(Tensor, module.bias).copy_((cast(Tensor, module.bias) - mean) * gain)
        return (output - mean[:, None]) * gain[:, None]

    convolutions = [m for m in generator.modules() if isinstance(m, nn.Conv1d | nn.ConvTranspose1d)]
    hooks = [convolution.register_forward_hook(fit) for convolution in convolutions]
    try:
        with torch.no_grad():
            generator(mel, excitation)
    finally:
        for hook in hooks:
            hook.remove()
