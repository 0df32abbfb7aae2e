"""The discriminator of UNAGAN: a BEGAN autoencoder of mel spectrograms, without a bottleneck."""

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from services.synth.unagan.blocks import KERNEL_SIZE, SpectralBody, convolution_block

DILATIONS = (1, 16, 32, 64, 128)


class Discriminator(nn.Module):
    """Redraws a mel spectrogram; how badly it does says how unlike the corpus it is."""

    def __init__(self, mel_channels: int, width: int) -> None:
        super().__init__()
        self.body2d = SpectralBody(mel_channels)
        widths = [self.body2d.out_channels] + [width] * (len(DILATIONS) - 1)
        self.body1d = nn.Sequential(
            *(
                convolution_block(in_channels, width, dilation=dilation)
                for in_channels, dilation in zip(widths, DILATIONS, strict=True)
            )
        )
        self.head = spectral_norm(nn.Conv1d(width, mel_channels, KERNEL_SIZE, padding=1))

    def forward(self, mel: Tensor) -> Tensor:
        """Z-scored log-mels (B, mel_channels, T) to their redrawing, of the same shape."""
        redrawn: Tensor = self.head(self.body1d(self.body2d(mel)))
        return redrawn
