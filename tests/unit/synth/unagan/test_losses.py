import pytest
import torch

from services.synth.unagan.losses import Equilibrium, distance, mel_distance


def test_began_weighs_generated_sound_by_k_within_its_bounds() -> None:
    equilibrium = Equilibrium(gamma=0.5, lambda_k=0.1, k=torch.tensor(0.2))
    real, generated = torch.tensor(0.8), torch.tensor(0.3)

    assert equilibrium.discriminator_loss(real, generated).item() == pytest.approx(0.74)
    assert equilibrium.convergence(real, generated).item() == pytest.approx(0.9)
    equilibrium.update(real, generated)
    assert equilibrium.k.item() == pytest.approx(0.21)
    equilibrium.update(torch.tensor(0.0), torch.tensor(100.0))
    assert equilibrium.k.item() == 0.0


def test_distances_are_means_in_float32_whatever_the_networks_answer() -> None:
    first, second = torch.tensor([1.0, -1.0]), torch.tensor([0.0, 1.0])

    assert distance(first, second).item() == 1.5
    assert distance(first.bfloat16(), second).dtype == torch.float32


def test_mel_distance_tells_frozen_and_silent_mels_from_real_ones() -> None:
    random = torch.Generator().manual_seed(0)
    real = torch.randn((4, 16, 100), generator=random).cumsum(dim=2) / 5
    alike = torch.randn((4, 16, 100), generator=random).cumsum(dim=2) / 5
    frozen = real[..., :1].expand_as(real)

    assert mel_distance(real, real).item() == 0
    assert mel_distance(real, alike) < mel_distance(real, frozen)
    assert mel_distance(real, alike) < mel_distance(real, torch.full_like(real, -5))
