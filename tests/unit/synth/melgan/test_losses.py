from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from services.synth.melgan.losses import (
    feature_matching,
    hinge_discriminator,
    hinge_generator,
    mel_reconstruction,
    multi_resolution_stft,
)

Loss = Callable[[Tensor, Tensor], Tensor]


def sounds(seed: int) -> Tensor:
    """Four, each softer than the one before."""
    random = torch.Generator().manual_seed(seed)
    loudness = torch.tensor([0.3, 0.03, 0.01, 0.001])[:, None, None]
    return loudness * torch.randn(4, 1, 8192, generator=random)


def features(sound: Tensor) -> list[list[Tensor]]:
    return [[sound, sound.square(), sound.mean(dim=2, keepdim=True)]]


LOSSES: dict[str, Loss] = {
    "hinge_discriminator": lambda r, f: hinge_discriminator(features(r), features(f)),
    "hinge_generator": lambda _, f: hinge_generator(features(f)),
    "feature_matching": lambda r, f: feature_matching(features(r), features(f)),
    "mel_reconstruction": mel_reconstruction,
    "multi_resolution_stft": multi_resolution_stft,
}


@pytest.mark.parametrize("name", list(LOSSES))
def test_the_loss_of_a_batch_is_the_mean_of_its_halves(name: str) -> None:
    """So the average over devices, each with its share, is the loss of one device with all."""
    real, fake, loss = sounds(1), sounds(2), LOSSES[name]
    halves = [loss(r, f) for r, f in zip(real.split(2), fake.split(2), strict=True)]
    assert float(loss(real, fake)) == pytest.approx(float(sum(halves)) / 2, rel=1e-5)


@pytest.mark.parametrize("name", ["hinge_discriminator", "hinge_generator", "feature_matching"])
def test_losses_of_half_precision_features_are_float32(name: str) -> None:
    real, fake = sounds(1), sounds(2)
    whole = LOSSES[name](real, fake)
    half = LOSSES[name](real.bfloat16(), fake.bfloat16())
    assert half.dtype == torch.float32
    assert float(half) == pytest.approx(float(whole), rel=0.02, abs=1e-3)


def test_equal_sounds_are_no_distance_apart_and_silence_has_finite_gradients() -> None:
    real = sounds(1)
    assert float(multi_resolution_stft(real, real)) == 0
    fake = torch.zeros_like(real, requires_grad=True)
    torch.autograd.backward(multi_resolution_stft(torch.zeros_like(real), fake))
    assert fake.grad is not None
    assert torch.isfinite(fake.grad).all()
