"""What each step of MelGAN's training hears, as it follows from seed and step alone.

So no two steps and no two epochs repeat each other, a resumed training goes on as if undisturbed,
and several devices hear what one would.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from services.synth.corpus.clips import Clip
from services.synth.melgan.generator import Generator
from services.synth.melgan.training_settings import MelGanTraining


class Batch(NamedTuple):
    """Crops, and the chance that their copies are excited by."""

    real: Tensor
    """(B, 1, crop_samples) float32."""
    turns: Tensor | None
    """What `Excitation.draw_turns` gives, where the generator is excited."""

    def pinned(self) -> "Batch":
        """In memory that a GPU can read by itself."""
        return Batch(
            self.real.pin_memory(), None if self.turns is None else self.turns.pin_memory()
        )

    def to(self, device: torch.device) -> "Batch":
        """On that device, which is not waited for."""
        turns = None if self.turns is None else self.turns.to(device, non_blocking=True)
        return Batch(self.real.to(device, non_blocking=True), turns)


class Batches:
    """Draws them from `clips`, on the CPU; safe for one thread beside others."""

    def __init__(
        self, settings: MelGanTraining, clips: Sequence[Clip], generator: Generator, seed: int
    ) -> None:
        self._settings = settings
        self._clips = clips
        self._excitation = generator.excitation
        self._seed = seed

    def crops(self, step: int, items: Sequence[int] | None = None) -> Tensor:
        """(items, 1, crop_samples) float32: those items of the batch of that step, or all.

        Each file is as likely as another.
        """
        settings = self._settings
        count = len(self._clips)
        chosen = np.random.default_rng((self._seed, step)).choice(
            count, settings.batch_size, replace=count < settings.batch_size
        )
        crops = [
            settings.augmentation.crop(
                self._clips[chosen[item]].samples,
                settings.crop_samples,
                # A 0 at the end would give the generator that chose.
                np.random.default_rng((self._seed, step, item + 1)),
            )
            for item in (range(settings.batch_size) if items is None else items)
        ]
        return torch.from_numpy(np.stack(crops)[:, None])

    def batch(self, step: int, items: Sequence[int]) -> Batch:
        """Those items of the batch of that step, each with chance of its own."""
        real = self.crops(step, items)
        if self._excitation is None:
            return Batch(real, None)
        first = (self._seed * 1_000_003 + step) * self._settings.batch_size
        turns = self._excitation.draw_turns([(first + item) % 2**64 for item in items])
        return Batch(real, turns)
