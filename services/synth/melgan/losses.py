"""What MelGAN minimises: hinge and feature matching (Kumar et al., 2019, arXiv:1910.06711).

`multi_resolution_stft` is Parallel WaveGAN's (Yamamoto et al., 2020, arXiv:1910.11480) at the
resolutions that models are judged by; it lets a narrow generator learn within minutes. All are
means over the items of a batch, so that the average over the equal shares of several devices is the
loss of the batch. They are float32 whatever is given: in bf16, a mean of many small values would
lose them.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from services.synth.melgan.discriminator import Features

STFT_RESOLUTIONS = ((512, 128, 512), (1024, 256, 1024), (2048, 512, 2048))
"""(n_fft, hop length, window length) of each."""
QUIETEST_POWER = 1e-10
QUIETEST_NORM = 1.0


def hinge_discriminator(real: Features, fake: Features) -> Tensor:
    """Verdicts on real sound pushed above 1, on generated below -1; summed over scales."""
    losses = [
        F.relu(1 - real_scale[-1].float()).mean() + F.relu(1 + fake_scale[-1].float()).mean()
        for real_scale, fake_scale in zip(real, fake, strict=True)
    ]
    return torch.stack(losses).sum()


def hinge_generator(fake: Features) -> Tensor:
    """Verdicts on generated sound pushed up; summed over scales."""
    return torch.stack([-scale[-1].float().mean() for scale in fake]).sum()


def feature_matching(real: Features, fake: Features) -> Tensor:
    """Mean absolute difference of the hidden layers, weighted 4 / (strided layers + 1) / scales."""
    total = []
    for real_scale, fake_scale in zip(real, fake, strict=True):
        hidden = len(real_scale) - 1
        # Beside the strided layers, one hidden layer stands before them and one behind.
        weight = 4 / (hidden - 1) / len(real)
        total += [
            weight * F.l1_loss(fake_scale[layer].float(), real_scale[layer].detach().float())
            for layer in range(hidden)
        ]
    return torch.stack(total).sum()


def mel_reconstruction(real_mel: Tensor, fake_mel: Tensor) -> Tensor:
    """Mean absolute difference of two log-mel spectrograms (B, n_mels, frames)."""
    return F.l1_loss(fake_mel, real_mel)


def multi_resolution_stft(real: Tensor, fake: Tensor) -> Tensor:
    """Spectral convergence and log-magnitude distance of (B, 1, samples), mean of resolutions.

    Each item's convergence is relative to its own spectrogram. The samples must be float32 and
    exceed half the longest transform, 1024.
    """
    losses = []
    for n_fft, hop_length, win_length in STFT_RESOLUTIONS:
        window = torch.hann_window(win_length, device=real.device)
        wanted, got = (
            _magnitudes(audio, n_fft, hop_length, win_length, window) for audio in (real, fake)
        )
        # A silent crop has norm 0: without the floor it would outweigh all others.
        scale = torch.linalg.vector_norm(wanted, dim=(1, 2)).clamp(min=QUIETEST_NORM)
        losses.append((torch.linalg.vector_norm(wanted - got, dim=(1, 2)) / scale).mean())
        losses.append(F.l1_loss(got.log(), wanted.log()))
    return torch.stack(losses).sum() / len(STFT_RESOLUTIONS)


def _magnitudes(
    audio: Tensor, n_fft: int, hop_length: int, win_length: int, window: Tensor
) -> Tensor:
    spectrum = torch.stft(
        audio.squeeze(1), n_fft, hop_length, win_length, window, return_complex=True
    )
    power = spectrum.real.square() + spectrum.imag.square()
    return power.clamp(min=QUIETEST_POWER).sqrt()
