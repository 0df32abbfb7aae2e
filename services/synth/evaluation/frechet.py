"""The Fréchet distance of two sounds' timbres (Dowson and Landau, 1982; as FID, arXiv:1706.08500).

Each side is a Gaussian of its MFCC frames, each coefficient standardised over the corpus: of raw
ones the zeroth, which is the level, has about half of all variance. MFCCs are the descriptors that
runs match by, and need no trained network.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import librosa
import numpy as np
from numpy.typing import NDArray

from services.errors import InvalidInputError

COEFFICIENTS = 13
N_FFT = 2048
HOP_LENGTH = 1024
LEAST_FILES_TO_HALVE = 4
PIECES = 8
LEAST_DEVIATION = 1e-3

Frames = NDArray[np.float64]


def mfcc_frames(
    samples: NDArray[np.floating[Any]], sample_rate_hertz: int, *, normalised: bool = True
) -> Frames:
    """MFCC frames (frames, 13) of (n,) samples; if `normalised`, their peak is brought to 1 first.

    Windows of 2048 samples, 1024 apart, 128 mel bands, at most 80 dB below the loudest. Raises
    InvalidInputError for silence, which has no timbre.
    """
    peak = np.abs(samples).max(initial=0.0)
    if not peak > 0:
        raise InvalidInputError("a silent sound has no MFCCs to compare")
    scale = peak if normalised else 1.0
    padded = np.pad(samples.astype(np.float32) / scale, (0, max(N_FFT - len(samples), 0)))
    frames: Frames = librosa.feature.mfcc(
        y=padded,
        sr=sample_rate_hertz,
        n_mfcc=COEFFICIENTS,
        n_fft=N_FFT,
        hop_length=HOP_LENGTH,
    ).T.astype(np.float64)
    return frames


@dataclass(frozen=True, eq=False)
class Standard:
    """Mean and deviation (13,) of each coefficient over all frames of a corpus."""

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]

    @classmethod
    def of(cls, sounds: Sequence[Frames]) -> Self:
        """That of some sounds' frames (frames, 13), each frame counting alike.

        Deviations are at least 1e-3: a coefficient that never varies stays finite.
        """
        frames = np.concatenate(list(sounds))
        return cls(frames.mean(axis=0), frames.std(axis=0).clip(min=LEAST_DEVIATION))

    def apply(self, sounds: Sequence[Frames]) -> list[Frames]:
        """The frames in deviations from the mean: the corpus itself then has means 0, deviations 1.

        Distances may be compared only where both sides were standardised by the same corpus.
        """
        return [(frames - self.mean) / self.deviation for frames in sounds]


@dataclass(frozen=True, eq=False)
class Gaussian:
    """A normal distribution: `mean` (d,) and `covariance` (d, d), which may be singular."""

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]

    @classmethod
    def of(cls, sounds: Sequence[Frames]) -> Self:
        """The likeliest one of all frames (frames, d) of some sounds, each frame counting alike.

        Raises InvalidInputError if there are no frames.
        """
        frames = np.concatenate(list(sounds)) if sounds else np.empty((0, COEFFICIENTS))
        if not len(frames):
            raise InvalidInputError("no sound to compare by its MFCCs")
        return cls(frames.mean(axis=0), np.atleast_2d(np.cov(frames, rowvar=False, ddof=0)))


def frechet_distance(first: Gaussian, second: Gaussian) -> float:
    """|m1 - m2|² + tr(C1 + C2 - 2 (C1 C2)^½): at least 0, and 0 for equal ones.

    The trace of the root is the sum of the singular values of C1^½ C2^½: real, and exact even where
    a covariance is singular.
    """
    cross = np.linalg.svd(
        _root(first.covariance) @ _root(second.covariance), compute_uv=False
    ).sum()
    means = np.square(first.mean - second.mean).sum()
    traces = np.trace(first.covariance) + np.trace(second.covariance)
    return max(float(means + traces - 2 * cross), 0.0)


def half_to_half(sounds: Sequence[Frames], *, splits: int, seed: int) -> float:
    """How far one half of a corpus is from the other: mean over `splits` drawn by `seed`.

    Whole files go to either half, since the sound that a model is judged by is of whole files, too:
    so it answers how far other recordings of the same corpus are. Fewer than four files cannot be
    dealt out in many ways: each is cut into eight pieces of time first. Where halves cannot be of
    the same number, one has one more.

    Raises InvalidInputError if there are fewer than two frames.
    """
    parts = pieces(sounds)
    if len(parts) < 2:
        raise InvalidInputError("a corpus of one moment has no halves")
    random = np.random.default_rng(seed)
    distances = []
    for _ in range(splits):
        order = random.permutation(len(parts))
        halves = np.array_split(order, 2)
        gaussians = [Gaussian.of([parts[number] for number in half]) for half in halves]
        distances.append(frechet_distance(*gaussians))
    return float(np.mean(distances))


def pieces(sounds: Sequence[Frames]) -> list[Frames]:
    """The sounds themselves, or their eighths where there are fewer than four."""
    if len(sounds) >= LEAST_FILES_TO_HALVE:
        return list(sounds)
    parts = [part for sound in sounds for part in np.array_split(sound, PIECES)]
    return [part for part in parts if len(part)]


def spread(sounds: Sequence[Frames]) -> float:
    """Mean distance between the mean MFCCs of each two of the sounds; 0 for fewer than two."""
    means = np.stack([sound.mean(axis=0) for sound in sounds])
    if len(means) < 2:
        return 0.0
    first, second = np.triu_indices(len(means), k=1)
    return float(np.linalg.norm(means[first] - means[second], axis=1).mean())


def _root(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """The symmetric root of a symmetric matrix without negative eigenvalues."""
    values, vectors = np.linalg.eigh(covariance)
    root: NDArray[np.float64] = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    return root
