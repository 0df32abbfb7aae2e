"""The building blocks of UNAGAN: Liu, Chen, Yeh & Yang, "Unconditional Audio Generation with
Generative Adversarial Networks and Cycle Regularization" (Interspeech 2020).
"""

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from services.synth.recurrence import BidirectionalGRU

KERNEL_SIZE = 3
LEAKY_SLOPE = 0.01
# Widths, and time dilations, of the 2-D blocks that discriminator and encoder begin with.
SPECTRAL_CHANNELS = (4, 16, 64)
SPECTRAL_TIME_DILATIONS = (2, 4, 8)
FREQUENCY_STRIDE = 2


class RecurrentConvolution(nn.Module):
    """x + r + LeakyReLU(GN(conv(r))), where r is a bidirectional GRU of x, both ways summed."""

    def __init__(self, width: int, groups: int, dilation: int = 1) -> None:
        super().__init__()
        self.gru = BidirectionalGRU(width, width)
        self.conv = nn.Conv1d(
            width, width, KERNEL_SIZE, padding=dilation, dilation=dilation, groups=groups
        )
        self.norm = nn.GroupNorm(groups, width)

    def forward(self, x: Tensor, state: Tensor) -> Tensor:
        """(B, width, T) and the GRU's initial state (2, B, width) to (B, width, T)."""
        both_ways, _ = self.gru(x.transpose(1, 2), state)
        forwards, backwards = both_ways.transpose(1, 2).chunk(2, dim=1)
        r: Tensor = forwards + backwards
        convolved: Tensor = functional.leaky_relu(self.norm(self.conv(r)), LEAKY_SLOPE)
        return x + r + convolved


class BodyBlock(nn.Module):
    """Convolution, group norm, LeakyReLU, recurrent convolution, convolution."""

    def __init__(self, in_channels: int, width: int, groups: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv1d(in_channels, width, KERNEL_SIZE, padding=1)
        self.norm = nn.GroupNorm(groups, width)
        self.recurrent = RecurrentConvolution(width, groups)
        self.conv_out = nn.Conv1d(width, width, KERNEL_SIZE, padding=1)

    def forward(self, x: Tensor, state: Tensor) -> Tensor:
        """(B, in_channels, T) and an initial state (2, B, width) to (B, width, T)."""
        x = functional.leaky_relu(self.norm(self.conv_in(x)), LEAKY_SLOPE)
        out: Tensor = self.conv_out(self.recurrent(x, state))
        return out


def convolution_block(
    in_channels: int, out_channels: int, *, dilation: int = 1, stride: int = 1
) -> nn.Sequential:
    """(B, in_channels, T) to (B, out_channels, ceil(T / stride)), spectrally normalised."""
    return nn.Sequential(
        spectral_norm(
            nn.Conv1d(
                in_channels,
                out_channels,
                KERNEL_SIZE,
                stride=stride,
                padding=dilation,
                dilation=dilation,
            )
        ),
        nn.BatchNorm1d(out_channels),
        nn.LeakyReLU(LEAKY_SLOPE),
    )


class SpectralBody(nn.Module):
    """Three 2-D blocks that halve the frequency axis and look ever further along time."""

    def __init__(self, mel_channels: int) -> None:
        super().__init__()
        blocks = []
        in_channels, bands = 1, mel_channels
        for channels, dilation in zip(SPECTRAL_CHANNELS, SPECTRAL_TIME_DILATIONS, strict=True):
            blocks.append(
                nn.Sequential(
                    spectral_norm(
                        nn.Conv2d(
                            in_channels,
                            channels,
                            KERNEL_SIZE,
                            stride=(FREQUENCY_STRIDE, 1),
                            padding=(1, dilation),
                            dilation=(1, dilation),
                        )
                    ),
                    nn.BatchNorm2d(channels),
                    nn.LeakyReLU(LEAKY_SLOPE),
                )
            )
            in_channels, bands = channels, -(-bands // FREQUENCY_STRIDE)
        self.blocks = nn.Sequential(*blocks)
        self.out_channels = in_channels * bands

    def forward(self, mel: Tensor) -> Tensor:
        """(B, mel_channels, T) to (B, out_channels, T): channels and remaining bands in one."""
        spectral: Tensor = self.blocks(mel.unsqueeze(1))
        return spectral.flatten(1, 2)
