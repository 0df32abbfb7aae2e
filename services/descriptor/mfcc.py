"""Descriptors of timbre: 13 MFCCs of each frame, their deltas and delta-deltas, by librosa.

The published descriptors (DEMIURGE): mel spectrogram of 128 Slaney bands, decibels no further
than 80 below the loudest moment of the *file*, DCT, Savitzky-Golay derivatives over 9 frames.
Frames are centred, the edges padded with zeros as librosa does since 0.10.
https://librosa.org/doc/latest/generated/librosa.feature.mfcc.html
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import librosa
import numpy as np
import scipy.fft
import scipy.sparse
from numpy.lib.stride_tricks import sliding_window_view

from services.audio.published import PUBLISHED_HOP_LENGTH_SAMPLES, PUBLISHED_SAMPLE_RATE_HERTZ
from services.descriptor.spool import FloatArray, Spool
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


@dataclass(frozen=True)
class ExtractionSettings:
    """What may differ from one extraction to the next; the defaults are the published values."""

    sample_rate_hertz: int = PUBLISHED_SAMPLE_RATE_HERTZ
    """Rate that sound is resampled to."""
    hop_length: int = PUBLISHED_HOP_LENGTH_SAMPLES
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
    with Spool(len(FEATURE_NAMES)) as features:
        extract_blocks([samples], settings, features)
        return np.concatenate(list(features.rows())), deltas_are_zero(features.frame_count)


def extract_blocks(
    samples: Iterable[FloatArray], settings: ExtractionSettings, features: Spool
) -> None:
    """Fills `features` (39 of them) with what `extract` answers, bit for bit, from blocks (n,).

    Memory does not grow with their number. Raises InvalidInputError as `extract` does.
    """
    with Spool(MEL_BANDS, features.checkpoint) as decibels:
        decibels.fill(
            librosa.power_to_db(mel, top_db=None) for mel in _mel_power(samples, settings)
        )
        loudest = np.max([block.max() for block in decibels.blocks()])
        floor = loudest - np.float32(DYNAMIC_RANGE_DECIBELS)
        coefficients = (
            librosa.feature.mfcc(S=np.maximum(block, floor), n_mfcc=COEFFICIENTS)
            for block in decibels.blocks()
        )
        features.fill(_with_derivatives(coefficients, decibels.frame_count))


def warm_up() -> None:
    """Loads what librosa loads at its first call (numba, scipy), so that no caller waits for it."""
    extract(np.zeros(N_FFT * DELTA_WIDTH, dtype=np.float32), ExtractionSettings())


def _with_derivatives(coefficients: Iterable[FloatArray], frame_count: int) -> Iterator[FloatArray]:
    """(13, n) of each block, frame_count in all → (39, m): beside them deltas and delta-deltas.

    A frame waits for the half window that follows it. The first and the last half window of the
    sound come from a polynomial through its first and last window.
    """
    half = DELTA_WIDTH // 2
    held = np.empty((COEFFICIENTS, 0), np.float32)
    start = done = 0  # the first frame held, and the first that is still to be given
    for block in coefficients:
        if deltas_are_zero(frame_count):
            yield np.concatenate([block, np.zeros_like(block), np.zeros_like(block)])
            continue
        held = np.concatenate([held, block], axis=1)
        end = start + held.shape[1]
        ready = end if end == frame_count else end - half
        if held.shape[1] < DELTA_WIDTH:
            continue
        derivatives = [
            librosa.feature.delta(held, width=DELTA_WIDTH, order=order) for order in (1, 2)
        ]
        yield np.concatenate([held, *derivatives])[:, done - start : ready - start]
        done = ready
        kept = max(start, min(done - half, frame_count - DELTA_WIDTH))
        held = held[:, kept - start :]
        start = kept


def _mel_power(samples: Iterable[FloatArray], settings: ExtractionSettings) -> Iterator[FloatArray]:
    """Power in each mel band, (MEL_BANDS, frames) in blocks: librosa's, framed row by row.

    Raises InvalidInputError where it overflows.
    """
    # In double precision as librosa does it, so that what is 80 dB down keeps its digits.
    window = librosa.filters.get_window("hann", N_FFT, fftbins=True)
    bands = _mel_bands(settings.sample_rate_hertz)
    for frames in _framed(samples, settings.hop_length):
        with np.errstate(over="ignore"):
            spectrum = scipy.fft.rfft(frames * window)
            power = bands @ (spectrum.real**2 + spectrum.imag**2).T
            mel = power.astype(np.float32, order="C")
        if not np.isfinite(mel).all():
            raise InvalidInputError("samples are too loud to be described; full scale is 1")
        yield mel


def _framed(samples: Iterable[FloatArray], hop_length: int) -> Iterator[FloatArray]:
    """Frames (_BLOCK_FRAMES or fewer, N_FFT) around every hop-th sample; zeros beyond the ends."""
    step = _BLOCK_FRAMES * hop_length
    edge = np.zeros(N_FFT // 2, np.float32)
    held = edge
    for block in samples:
        held = np.concatenate([held, block])
        start = 0
        # With all that the next frames skip, so that they begin where `held` does.
        while len(held) - start >= step + N_FFT:
            yield sliding_window_view(held[start : start + step + N_FFT - hop_length], N_FFT)[
                ::hop_length
            ]
            start += step
        held = held[start:]
    frames = sliding_window_view(np.concatenate([held, edge]), N_FFT)[::hop_length]
    for first in range(0, len(frames), _BLOCK_FRAMES):
        yield frames[first : first + _BLOCK_FRAMES]


@lru_cache(maxsize=8)
def _mel_bands(sample_rate_hertz: int) -> scipy.sparse.csr_array:
    """Weights of each bin, (MEL_BANDS, bins)."""
    # Sparse, because a bin lies in two bands at most, and because BLAS would start threads for a
    # dense product, which fight those that describe other files.
    return scipy.sparse.csr_array(
        librosa.filters.mel(sr=sample_rate_hertz, n_fft=N_FFT, n_mels=MEL_BANDS)
    )
