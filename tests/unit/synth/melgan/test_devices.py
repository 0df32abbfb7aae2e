"""Two processes with half the batch each, by gloo, are one process with the whole batch."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from services.errors import SettingsMismatchError
from services.learning.world import ALONE, World
from services.synth.corpus.clips import Clip
from services.synth.mel import MelSettings
from services.synth.melgan.discriminator import DiscriminatorSettings
from services.synth.melgan.generator import MelGanSettings
from services.synth.melgan.training import MelGanTrainer
from services.synth.melgan.training_settings import MelGanTraining
from tests.unit.learning.processes import together

STEPS = 3
MEL = MelSettings(sample_rate_hertz=8000, n_fft=256, hop_length=64, win_length=256, n_mels=16)
SETTINGS = MelGanTraining(
    generator=MelGanSettings(
        variant="gru", ngf=4, n_residual_layers=1, ratios=(8, 8), excitation=True, mel=MEL
    ),
    discriminator=DiscriminatorSettings(ndf=2, n_layers=2, max_channels=8),
    batch_size=4,
    crop_samples=1536,
    max_gradient_norm=5.0,
    mel_weight=1.0,
    stft_weight=1.0,
    fit_to_data=True,
    average_decay=0.9,
)


def trainer(world: World, settings: MelGanTraining = SETTINGS) -> MelGanTrainer:
    random = np.random.default_rng(0)
    # Loud and soft sounds, so that an average over the wrong items shows.
    clips = [
        Clip(f"{n}.wav", (0.2 / 2**n * random.standard_normal(6000)).astype(np.float32))
        for n in range(5)
    ]
    return MelGanTrainer(settings, clips, device="cpu", seed=3, world=world)


Weights = dict[str, np.ndarray]  # type: ignore[type-arg]
Course = tuple[list[dict[str, float]], Weights, Weights]


def course(world: World) -> Course:
    training = trainer(world)
    start = _weights(training)
    losses = [{name: float(value) for name, value in training.step().items()} for _ in range(STEPS)]
    training.close()
    return losses, start, _weights(training)


def _weights(training: MelGanTrainer) -> Weights:
    networks = {
        "generator": training.generator,
        "discriminator": training.discriminator,
        "average": training.voice,
    }
    return {
        name: torch.cat([p.detach().flatten() for p in network.parameters()]).numpy()
        for name, network in networks.items()
    }


def test_two_processes_with_half_the_batch_each_learn_what_one_does() -> None:
    """Losses within 1e-4, weights within a twentieth of the way that they went.

    Sums have another order, Adam makes steps of one size of gradients of any size, and the
    logarithm of a bin that is nearly silent has a steep one.
    """
    losses, start, end = course(ALONE)
    (first_losses, first_start, first), (second_losses, _, second) = together(2, course)
    for alone, one, other in zip(losses, first_losses, second_losses, strict=True):
        assert one == other
        for figures in (alone, one):
            figures.pop("gradient_norm/generator")
        assert one == pytest.approx(alone, rel=1e-4, abs=1e-4)
    for name, weights in end.items():
        assert np.array_equal(first[name], second[name])
        assert np.array_equal(first_start[name], start[name])
        way = np.linalg.norm(weights - start[name])
        assert way > 0
        assert np.linalg.norm(first[name] - weights) < 0.05 * way


def test_each_process_hears_its_own_part_of_the_same_crops() -> None:
    crops = trainer(ALONE).batches.crops(5)
    shares = [
        trainer(World(rank, 2)).batches.crops(5, World(rank, 2).share(4)) for rank in range(2)
    ]
    assert torch.equal(torch.cat(shares), crops)


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(SettingsMismatchError, match="multiple of 3"):
        trainer(World(0, 3), replace(SETTINGS, batch_size=4))
