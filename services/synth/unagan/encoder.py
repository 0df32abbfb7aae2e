"""The encoder of UNAGAN: what noise would have sung this mel spectrogram (cycle regularization)."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from services.synth.unagan.blocks import KERNEL_SIZE, SpectralBody, convolution_block


class Encoder(nn.Module):
    """Undoes the hierarchical generator: strided by its scale factors."""

    def __init__(
        self, mel_channels: int, z_dim: int, z_scale_factors: Sequence[int], width: int
    ) -> None:
        super().__init__()
        self.body2d = SpectralBody(mel_channels)
        self.body1d = nn.Sequential(
            convolution_block(self.body2d.out_channels, width),
            *(convolution_block(width, width, stride=factor) for factor in z_scale_factors),
        )
        self.head = spectral_norm(nn.Conv1d(width, z_dim, KERNEL_SIZE, padding=1))

    def forward(self, mel: Tensor) -> Tensor:
        """Z-scored log-mels (B, mel_channels, T) to noise (B, z_dim, ceil(T / product))."""
        z: Tensor = self.head(self.body1d(self.body2d(mel)))
        return z
