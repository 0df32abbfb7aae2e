"""A waveform with plausible phases for a mel spectrogram, in one pass over its frames.

A convolutional generator answers a steady mel with a sound that repeats every hop: it buzzes at the
frame rate, whatever the pitch. Here each spectral peak turns by its own frequency from frame to
frame, and the bins around it turn with it: Beauregard, Harish & Wyse, "Single Pass Spectrogram
Inversion" (DSP 2015). The generator hears the result beside the mel and mends it.
"""

from collections.abc import Sequence

import librosa
import numpy as np
from numpy.typing import NDArray

from services.synth.mel import MelSettings

QUIETEST_MAGNITUDE = 1e-6
SMALLEST_WEIGHT = 1e-9
# Copies of the example recordings are hardly nearer with eight.
UPDATES = 4
# Bounds the memory that a long mel takes: some 40 MB at 513 bins.
BLOCK_FRAMES = 1024


class Excitation:
    """Excites mels of the given settings. Stateless, and safe for threads."""

    def __init__(self, settings: MelSettings) -> None:
        self._settings = settings
        bands = librosa.filters.mel(
            sr=settings.sample_rate_hertz, n_fft=settings.n_fft, n_mels=settings.n_mels
        )
        self._bands = bands.astype(np.float32)
        # How much each bin is heard, and what it is from what the bands that hear it are.
        self._heard = np.maximum(bands.sum(axis=0), SMALLEST_WEIGHT).astype(np.float32)
        widths = np.maximum(bands.sum(axis=1), SMALLEST_WEIGHT).astype(np.float32)
        self._spread = self._bands / widths[:, None] / self._heard
        self._bins = np.arange(settings.n_fft // 2 + 1)
        window = librosa.filters.get_window("hann", settings.win_length)
        self._window = librosa.util.pad_center(window, size=settings.n_fft)
        self._window /= np.square(self._window).sum() / settings.hop_length

    def __call__(self, mel: NDArray[np.float32], seeds: Sequence[int]) -> NDArray[np.float32]:
        """The waveforms (B, frames * hop_length), float32, of log10 mels (B, n_mels, frames).

        The phases that item i begins with are drawn from `seeds[i]`.
        """
        n_fft, hop = self._settings.n_fft, self._settings.hop_length
        batch, _, frames = mel.shape
        turn = np.stack([np.random.default_rng(seed).random(len(self._bins)) for seed in seeds])
        padding = self._settings.padding
        sound = np.zeros((batch, (frames - 1) * hop + n_fft), np.float32)
        for start in range(0, frames, BLOCK_FRAMES):
            magnitudes = self._magnitudes(mel[:, :, start : start + BLOCK_FRAMES])
            turns, turn = self._turns(magnitudes, turn)
            spectrum = magnitudes * np.exp(2j * np.pi * turns)
            # Phases are those of the middle of the frame, where the lobe of a peak has one sign.
            spectrum[..., 1::2] *= -1
            waves = np.fft.irfft(spectrum, n_fft) * self._window
            for frame in range(waves.shape[1]):
                place = (start + frame) * hop
                sound[:, place : place + n_fft] += waves[:, frame]
        return sound[:, padding : padding + frames * hop]

    def _magnitudes(self, mel: NDArray[np.float32]) -> NDArray[np.float32]:
        """(B, frames, bins): spectra that would have these mels.

        Each band is spread over its bins, and the bins then made to fit all bands by multiplicative
        updates: Lee & Seung, "Algorithms for Non-negative Matrix Factorization" (NIPS 2000).
        """
        wanted = np.power(10.0, mel).transpose(0, 2, 1)
        bins: NDArray[np.float32] = np.maximum(wanted @ self._spread, QUIETEST_MAGNITUDE)
        for _ in range(UPDATES):
            missing = wanted / np.maximum(bins @ self._bands.T, QUIETEST_MAGNITUDE)
            bins = np.maximum(bins * (missing @ self._bands) / self._heard, QUIETEST_MAGNITUDE)
        return bins

    def _turns(
        self, magnitudes: NDArray[np.float32], turn: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Phases in turns, (B, frames, bins), on from `turn`, (B, bins); and the last."""
        peak, frequency = self._peaks(magnitudes)
        advance = np.take_along_axis(frequency, peak, -1)
        advance *= self._settings.hop_length / self._settings.n_fft
        turns = np.empty(magnitudes.shape)
        for frame in range(magnitudes.shape[1]):
            turn = (np.take_along_axis(turn, peak[:, frame], -1) + advance[:, frame]) % 1.0
            turns[:, frame] = turn
        return turns, turn

    def _peaks(
        self, magnitudes: NDArray[np.float32]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """For each bin the nearest peak, and where between bins it would lie if it were one."""
        bins, last = self._bins, len(self._bins)
        inner, left, right = magnitudes[..., 1:-1], magnitudes[..., :-2], magnitudes[..., 2:]
        is_peak = np.zeros(magnitudes.shape, bool)
        is_peak[..., 1:-1] = (inner > left) & (inner >= right)
        below = np.maximum.accumulate(np.where(is_peak, bins, -last), axis=-1)
        above = np.minimum.accumulate(np.where(is_peak, bins, 2 * last)[..., ::-1], axis=-1)
        above = above[..., ::-1]
        nearest = np.where(bins - below <= above - bins, below, above)
        nearest = np.where((nearest < 0) | (nearest >= last), bins, nearest)
        # The top of the parabola through three logarithms.
        log = np.log(magnitudes)
        slope = log[..., :-2] - log[..., 2:]
        bend = log[..., :-2] - 2 * log[..., 1:-1] + log[..., 2:]
        offset = np.zeros(magnitudes.shape)
        np.divide(slope / 2, bend, out=offset[..., 1:-1], where=np.abs(bend) > 1e-9)
        return nearest, bins + offset.clip(-0.5, 0.5)
