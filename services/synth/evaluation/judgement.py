"""A judgement: what was found out about a model, as figures, in words and to look at."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from services.synth.mel import MelSettings, MelSpectrogram

Progress = Callable[[int, int], None]
"""Told how many of how many parts of the work are done."""


def silently(done: int, total: int) -> None:
    """Tells nobody."""


@dataclass(frozen=True, eq=False)
class Panel:
    """One spectrogram of a picture: log10 mel magnitudes (n_mels, frames), and what it shows."""

    title: str
    mel: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Judgement:
    """Figures by name, sentences that say how they were found, and rows of panels to compare."""

    figures: dict[str, float]
    remarks: list[str]
    rows: list[list[Panel]] = field(default_factory=list)
    seconds_per_frame: float = 1.0


def whole_frames(samples: NDArray[np.floating[Any]], mel: MelSettings) -> NDArray[np.float32]:
    """The sound, (n,) float32, with zeros behind it to whole hops and the shortest length."""
    hops = -(-max(len(samples), mel.shortest_samples) // mel.hop_length)
    return np.pad(samples, (0, hops * mel.hop_length - len(samples))).astype(np.float32)


def log_mel(samples: NDArray[np.floating[Any]], mel: MelSettings) -> NDArray[np.float32]:
    """Log10 mel magnitudes (n_mels, frames) of (n,) samples, padded to whole frames."""
    audio = torch.from_numpy(whole_frames(samples, mel))[None, None]
    spectrum: NDArray[np.float32] = MelSpectrogram(mel)(audio)[0].numpy()
    return spectrum


def weighted_mean(values: Sequence[float], weights: Sequence[int]) -> float:
    """Mean of values that count by their weights, of which one is positive."""
    return float(np.average(values, weights=weights))
