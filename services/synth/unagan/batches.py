"""What a step of UNAGAN's training is given: crops of the corpus, and noise.

All of it follows from seed, step and place in the batch alone. So no step repeats another's, a
training resumes as if it had never stopped, and several devices draw together what one would draw.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from services.synth.unagan.corpus import Corpus
from services.synth.unagan.training_settings import UnaganTraining

# What a random stream is for.
CROPS, NOISE, MOMENTS = range(3)


@dataclass(frozen=True, eq=False)
class Batch:
    """What a step wants beside the networks."""

    real: Tensor
    """Crops (B, n_mels, T) of the corpus."""
    z: Tensor
    """Noise (B, z_dim, columns)."""
    states: Tensor
    """First states (recurrent blocks, 2, B, width); with cycles of twice as many items."""

    def to(self, device: torch.device) -> "Batch":
        """The same on a device, without waiting for it."""
        if device.type == "cpu":
            return self
        parts = (self.real, self.z, self.states)
        return Batch(*(part.to(device, non_blocking=True) for part in parts))

    def pinned(self) -> "Batch":
        """The same where a GPU can fetch it by itself."""
        return Batch(self.real.pin_memory(), self.z.pin_memory(), self.states.pin_memory())


@dataclass(frozen=True, eq=False)
class Batches:
    """Makes the batches of a training, on the CPU."""

    settings: UnaganTraining
    """Of the training."""
    corpus: Corpus
    """What is learned."""
    recurrent_blocks: int
    """Those of the generator."""
    seed: int
    """Of the training."""
    items: range
    """Which items of each batch are this device's."""

    def make(self, step: int) -> Batch:
        """This device's share of the batch of a step."""
        seeds = [(self.seed, step, item) for item in self.items]
        crops = [self.corpus.crop(np.random.default_rng((*seed, CROPS))) for seed in seeds]
        return Batch(torch.stack(crops), *self.noise(seeds))

    def noise(self, seeds: Iterable[tuple[int, ...]]) -> tuple[Tensor, Tensor]:
        """`z` and `states` of a batch with one item a seed, normally distributed."""
        networks = self.settings.networks
        columns = self.settings.segment_frames // networks.frames_per_z
        # With cycles, each item is sung twice: from noise, and as a copy.
        passes = 2 if self.settings.cycle else 1
        shape = (self.recurrent_blocks, 2, passes, networks.middle_dim)
        z, states = [], []
        for seed in seeds:
            random = np.random.default_rng((*seed, NOISE))
            z.append(torch.from_numpy(random.standard_normal((networks.z_dim, columns), "f4")))
            states.append(torch.from_numpy(random.standard_normal(shape, "f4")))
        return networks.shaped(torch.stack(z)), torch.stack(states, dim=3).flatten(2, 3)

    def many_crops(self, frames: int) -> Tensor:
        """(B, n_mels, T): crops of at least so many frames in all, of whichever device."""
        random = np.random.default_rng((self.seed, MOMENTS))
        count = -(-frames // self.settings.segment_frames)
        return torch.stack([self.corpus.crop(random) for _ in range(count)])
