"""Descriptors of timbre: 13 MFCCs of each frame, their deltas and delta-deltas, by librosa.

The published descriptors (DEMIURGE): mel spectrogram of 128 Slaney bands, decibels no further
than 80 below the loudest moment of the *file*, DCT, Savitzky-Golay derivatives over 9 frames.
Frames are centred, the edges padded with zeros as librosa does since 0.10.
https://librosa.org/doc/latest/generated/librosa.feature.mfcc.html
"""

from dataclasses import dataclass
from functools import lru_cache

import librosa
import numpy as np
import scipy.fft
import scipy.sparse
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from services.errors import InvalidInputError

# Raised whenever the answer to the same sound and settings changes; stored results carry it.
ALGORITHM = 1

N_FFT = 2048
MEL_BANDS = 128
COEFFICIENTS = 13
DELTA_WIDTH = 9
DYNAMIC_RANGE_DECIBELS = 80.0
FEATURE_NAMES = tuple(f"mfcc{i}" for i in range(3 * COEFFICIENTS))

# Spectra are reduced to mel bands this many frames at a time: they stay in the processor's cache,
# and an hour of sound needs no gigabytes for them.
_BLOCK_FRAMES = 64

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class ExtractionSettings:
    """What may differ from one extraction to the next; the defaults are the published values."""

    sample_rate_hertz: int = 44_100
    """Rate that sound is resampled to."""
    hop_length: int = 1024
    """Distance between frames, in samples at that rate."""

    def __post_init__(self) -> None:
        for field in ("sample_rate_hertz", "hop_length"):
            if getattr(self, field) <= 0:
                raise InvalidInputError(f"{field} must be positive", culprit=field)


def deltas_are_zero(frame_count: int) -> bool:
    """Whether a sound of so many frames is too short for derivatives: they are set to zero."""
    return frame_count < DELTA_WIDTH


def extract(samples: FloatArray, settings: ExtractionSettings) -> tuple[FloatArray, bool]:
    """Mono samples (n,) float32 → ((1 + n // hop, 39) float32, deltas_are_zero).

    Frame t is centred on sample t * hop; the columns are FEATURE_NAMES. A pure function: the same
    answer in any thread. Raises InvalidInputError if there are no samples, or they are so loud
    that their power overflows.
    """
    if samples.ndim != 1 or not samples.size:
        raise InvalidInputError(f"samples of shape {samples.shape} are not one channel of sound")
    mel = _mel_power(samples, settings)
    if not np.isfinite(mel).all():
        raise InvalidInputError("samples are too loud to be described; full scale is 1")
    decibels = librosa.power_to_db(mel, top_db=DYNAMIC_RANGE_DECIBELS)
    coefficients = librosa.feature.mfcc(S=decibels, n_mfcc=COEFFICIENTS)
    too_short = deltas_are_zero(coefficients.shape[1])
    derivatives = [
        np.zeros_like(coefficients)
        if too_short
        else librosa.feature.delta(coefficients, width=DELTA_WIDTH, order=order)
        for order in (1, 2)
    ]
    features = np.concatenate([coefficients, *derivatives]).T
    return np.ascontiguousarray(features, dtype=np.float32), too_short


def warm_up() -> None:
    """Loads what librosa loads at its first call (numba, scipy), so that no caller waits for it."""
    extract(np.zeros(N_FFT * DELTA_WIDTH, dtype=np.float32), ExtractionSettings())


def _mel_power(samples: FloatArray, settings: ExtractionSettings) -> FloatArray:
    """Power in each mel band, (MEL_BANDS, frames): librosa's melspectrogram, framed row by row."""
    frames = sliding_window_view(np.pad(samples, N_FFT // 2), N_FFT)[:: settings.hop_length]
    # In double precision as librosa does it, so that what is 80 dB down keeps its digits.
    window = librosa.filters.get_window("hann", N_FFT, fftbins=True)
    bands = _mel_bands(settings.sample_rate_hertz)
    mel = np.empty((MEL_BANDS, len(frames)), dtype=np.float32)
    with np.errstate(over="ignore"):
        for start in range(0, len(frames), _BLOCK_FRAMES):
            stop = start + _BLOCK_FRAMES
            spectrum = scipy.fft.rfft(frames[start:stop] * window)
            mel[:, start:stop] = bands @ (spectrum.real**2 + spectrum.imag**2).T
    return mel


@lru_cache(maxsize=8)
def _mel_bands(sample_rate_hertz: int) -> scipy.sparse.csr_array:
    """Weights of each bin, (MEL_BANDS, bins)."""
    # Sparse, because a bin lies in two bands at most, and because BLAS would start threads for a
    # dense product, which fight those that describe other files.
    return scipy.sparse.csr_array(
        librosa.filters.mel(sr=sample_rate_hertz, n_fft=N_FFT, n_mels=MEL_BANDS)
    )
