"""Small UNAGANs in training, and short clips for them."""

from dataclasses import replace

import numpy as np

from services.learning.world import ALONE, World
from services.synth.corpus.clips import Clip
from services.synth.mel import MelSettings
from services.synth.unagan.generator import UnaganSettings
from services.synth.unagan.training import UnaganTrainer
from services.synth.unagan.training_settings import UnaganTraining

MEL = MelSettings(n_mels=16)
SMALL = UnaganTraining(
    networks=UnaganSettings(z_dim=4, z_scale_factors=(2, 2), middle_dim=8, num_groups=2, mel=MEL),
    segment_seconds=0.1,
    batch_size=3,
    learning_rate=1e-3,
)
FORMS = {
    "with cycles": SMALL,
    "without": replace(SMALL, cycle=False),
    "nonhierarchical": replace(
        SMALL, cycle=False, networks=replace(SMALL.networks, variant="nonhierarchical")
    ),
}


def clip(name: str, seconds: float, gain: float = 0.5, seed: int = 0) -> Clip:
    """Noise that fades in, so that its moments differ."""
    random = np.random.default_rng(seed)
    count = max(int(seconds * 44_100), 1)
    samples = random.uniform(-gain, gain, count) * np.linspace(0.05, 1, count)
    return Clip(name, samples.astype(np.float32))


def clips(count: int = 4, seconds: float = 0.5) -> list[Clip]:
    """As many clips of noise, each another."""
    return [clip(f"{number}.wav", seconds, seed=number) for number in range(count)]


def trainer(
    settings: UnaganTraining = SMALL, count: int = 4, seed: int = 0, world: World = ALONE
) -> UnaganTrainer:
    """A trainer of that many clips, on the CPU."""
    return UnaganTrainer(settings, clips(count), device="cpu", seed=seed, world=world)
