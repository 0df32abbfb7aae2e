"""What each step of MelGAN's training hears, as it follows from seed and step alone.

So no two steps and no two epochs repeat each other, a resumed training goes on as if undisturbed,
and several devices hear what one would.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from services.synth.clips import Clip
from services.synth.mel import MelSpectrogram
from services.synth.melgan.generator import Generator
from services.synth.melgan.training_settings import MelGanTraining


class Batch(NamedTuple):
    """Crops and what the generator gets to copy them by."""

    real: Tensor
    """(B, 1, crop_samples) float32."""
    mel: Tensor
    """(B, n_mels, frames) float32."""
    excitation: Tensor | None
    """What `Generator.excite` gives for these mels."""

    def pinned(self) -> "Batch":
        """In memory that a GPU can read by itself."""
        excitation = None if self.excitation is None else self.excitation.pin_memory()
        return Batch(self.real.pin_memory(), self.mel.pin_memory(), excitation)

    def to(self, device: torch.device) -> "Batch":
        """On that device, which is not waited for."""

        def moved(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=True)

        excitation = None if self.excitation is None else moved(self.excitation)
        return Batch(moved(self.real), moved(self.mel), excitation)


class Batches:
    """Draws them from `clips`, on the CPU; safe for one thread beside others."""

    def __init__(
        self, settings: MelGanTraining, clips: Sequence[Clip], generator: Generator, seed: int
    ) -> None:
        self._settings = settings
        self._clips = clips
        self._excite = generator.excite
        self._seed = seed
        self._mel = MelSpectrogram(settings.generator.mel)

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
        """Those items of the batch of that step, each excited by chance of its own."""
        real = self.crops(step, items)
        mel = self._mel(real)
        first = (self._seed * 1_000_003 + step) * self._settings.batch_size
        return Batch(real, mel, self._excite(mel, [(first + item) % 2**64 for item in items]))
