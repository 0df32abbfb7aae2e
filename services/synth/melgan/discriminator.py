"""The MelGAN discriminator: three scales of one waveform (Kumar et al., 2019, arXiv:1910.06711)."""

import math
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from services.errors import SettingsMismatchError

LEAK = 0.2

Features = list[list[Tensor]]
"""Every layer's output of every scale; the last of each scale is its verdict."""


@dataclass(frozen=True)
class DiscriminatorSettings:
    """Widths of the discriminator, by the names that the published arguments have."""

    scales: int = 3
    """How many discriminators look, each at half the rate of the one before."""
    ndf: int = 16
    """Channels of the first layer."""
    n_layers: int = 4
    """Strided layers."""
    downsampling_factor: int = 4
    """Stride of each, and what it multiplies the channels by."""
    max_channels: int = 1024
    """Where channels stop growing."""

    def __post_init__(self) -> None:
        numbers = (self.scales, self.ndf, self.downsampling_factor, self.max_channels)
        if min(numbers) < 1 or self.n_layers < 0:
            raise SettingsMismatchError(f"MelGAN discriminator: {self} must be positive")


class ScaleDiscriminator(nn.Module):
    """Strided grouped convolutions that judge overlapping windows of the waveform."""

    def __init__(self, settings: DiscriminatorSettings) -> None:
        super().__init__()
        stride = settings.downsampling_factor
        channels = min(settings.ndf, settings.max_channels)
        layers: list[nn.Module] = [
            _activated(nn.Conv1d(1, channels, 15, padding=7, padding_mode="reflect"))
        ]
        for _ in range(settings.n_layers):
            wider = min(channels * stride, settings.max_channels)
            strided = nn.Conv1d(
                channels,
                wider,
                kernel_size=stride * 10 + 1,
                stride=stride,
                padding=stride * 5,
                groups=_groups(channels, wider),
            )
            layers.append(_activated(strided))
            channels = wider
        wider = min(channels * 2, settings.max_channels)
        layers.append(_activated(nn.Conv1d(channels, wider, kernel_size=5, padding=2)))
        layers.append(weight_norm(nn.Conv1d(wider, 1, kernel_size=3, padding=1)))
        self.layers = nn.ModuleList(layers)

    def forward(self, audio: Tensor) -> list[Tensor]:
        """(B, 1, samples) to every layer's output (B, channels, steps), the verdict last."""
        outputs = []
        x = audio
        for layer in self.layers:
            x = layer(x)
            outputs.append(x)
        return outputs


class Discriminator(nn.Module):
    """One discriminator a scale; between them, the waveform is averaged to half its rate."""

    def __init__(self, settings: DiscriminatorSettings) -> None:
        super().__init__()
        self.settings = settings
        self.scales = nn.ModuleList(ScaleDiscriminator(settings) for _ in range(settings.scales))
        self.halve = nn.AvgPool1d(4, stride=2, padding=1, count_include_pad=False)

    def forward(self, audio: Tensor) -> Features:
        """(B, 1, samples) float32 to the layer outputs of each scale."""
        features = []
        for number, scale in enumerate(self.scales):
            features.append(scale(audio if number == 0 else (audio := self.halve(audio))))
        return features


def _activated(convolution: nn.Conv1d) -> nn.Sequential:
    return nn.Sequential(weight_norm(convolution), nn.LeakyReLU(LEAK))


def _groups(in_channels: int, out_channels: int) -> int:
    """Groups of four channels as published, or the nearest wider ones where four do not divide."""
    shared = math.gcd(in_channels, out_channels)
    most = max(in_channels // 4, 1)
    return max(groups for groups in range(1, most + 1) if shared % groups == 0)
