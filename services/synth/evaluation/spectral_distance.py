"""How far a copy is from its recording: multi-resolution STFT distance (arXiv:1910.11480).

At each of three resolutions, spectral convergence plus mean absolute difference of natural log
magnitudes; the mean of the three. Hann windows as long as the transform, a quarter apart.
"""

from typing import Any

import librosa
import numpy as np
from numpy.typing import NDArray

from services.errors import InvalidInputError

RESOLUTIONS = (512, 1024, 2048)
"""Samples of each transform."""
QUIETEST_MAGNITUDE = 1e-5


def stft_distance(recording: NDArray[np.floating[Any]], copy: NDArray[np.floating[Any]]) -> float:
    """Distance of two sounds (n,) of the same length; 0 for equal ones.

    Raises InvalidInputError for other shapes.
    """
    if recording.ndim != 1 or recording.shape != copy.shape or not recording.size:
        raise InvalidInputError(
            f"STFT distance: {recording.shape} and {copy.shape} are no two sounds of one length"
        )
    return float(np.mean([_distance(recording, copy, n_fft) for n_fft in RESOLUTIONS]))


def _distance(
    recording: NDArray[np.floating[Any]], copy: NDArray[np.floating[Any]], n_fft: int
) -> float:
    wanted, got = (_magnitudes(samples, n_fft) for samples in (recording, copy))
    # A recording of silence has norm 0, and any copy would be infinitely far from it.
    quietest = QUIETEST_MAGNITUDE * np.sqrt(wanted.size)
    convergence = np.linalg.norm(wanted - got) / max(np.linalg.norm(wanted), quietest)
    logs = (np.log(np.maximum(each, QUIETEST_MAGNITUDE)) for each in (wanted, got))
    return float(convergence + np.abs(np.subtract(*logs)).mean())


def _magnitudes(samples: NDArray[np.floating[Any]], n_fft: int) -> NDArray[np.float64]:
    padded = np.pad(samples.astype(np.float64), (0, max(n_fft - len(samples), 0)))
    magnitudes: NDArray[np.float64] = np.abs(
        librosa.stft(padded, n_fft=n_fft, hop_length=n_fft // 4)
    )
    return magnitudes
