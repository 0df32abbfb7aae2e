"""Windows on a device, and which of them a step learns from."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from services.predictor.training.corpus import Windows


class Batches:
    """Sequences of `length` frames, gathered by where they start."""

    def __init__(self, windows: Windows, length: int, device: torch.device) -> None:
        self.starts = torch.from_numpy(windows.starts).to(device)
        self.length = length
        self._frames = torch.from_numpy(windows.frames).to(device)
        self._counts = torch.from_numpy(windows.counts).to(device)
        self._offsets = torch.arange(length, device=device)

    def at(self, starts: Tensor) -> tuple[Tensor, Tensor]:
        """Frames (B, length, features) and whether they count, (B, length)."""
        places = starts.unsqueeze(1) + self._offsets
        return self._frames[places], self._counts[places]

    def spread(self, most: int) -> Tensor:
        """Starts of at most so many sequences, evenly apart; 0 means all."""
        apart = math.ceil(len(self.starts) / most) if most else 1
        return self.starts[:: max(apart, 1)]


@dataclass(frozen=True, eq=False)
class InParts:
    """Sequences some at a time, so that only those lie in memory; it may be walked over again."""

    batches: Batches
    starts: Tensor
    at_once: int

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for part in torch.split(self.starts, self.at_once):
            yield self.batches.at(part)


class Shuffled:
    """Batches in a new order each epoch, each of which follows from seed and epoch alone."""

    def __init__(self, starts: Tensor, batch_size: int, seed: int) -> None:
        self._starts = starts
        self._batch_size = batch_size
        self._seed = seed
        self._epoch, self._order = -1, starts

    @property
    def steps_per_epoch(self) -> int:
        """Batches that hold every window once."""
        return math.ceil(len(self._starts) / self._batch_size)

    def at(self, step: int) -> Tensor:
        """Where the windows of a step start; the last ones of an epoch may be fewer."""
        epoch, batch = divmod(step, self.steps_per_epoch)
        if self._epoch != epoch:
            drawn = np.random.default_rng((self._seed, epoch)).permutation(len(self._starts))
            self._epoch = epoch
            self._order = self._starts[torch.from_numpy(drawn).to(self._starts.device)]
        return self._order[batch * self._batch_size : (batch + 1) * self._batch_size]
