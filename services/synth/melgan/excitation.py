"""A waveform with plausible phases for a mel spectrogram, in one pass over its frames.

A convolutional generator answers a steady mel with a sound that repeats every hop: it buzzes at the
frame rate, whatever the pitch. Here each spectral peak turns by its own frequency from frame to
frame, and the bins around it turn with it: Beauregard, Harish & Wyse, "Single Pass Spectrogram
Inversion" (DSP 2015). The generator hears the result beside the mel and mends it.
"""

from collections.abc import Callable, Sequence

import librosa
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from services.synth.mel import MelSettings

QUIETEST_MAGNITUDE = 1e-6
SMALLEST_WEIGHT = 1e-9
# Copies of the example recordings are hardly nearer with eight.
UPDATES = 4
# Bounds the memory that a long mel takes: some 40 MB at 513 bins.
BLOCK_FRAMES = 1024


class Excitation(nn.Module):
    """Excites mels of the given settings. Nothing in it is learned, or stored with a model."""

    bands: Tensor
    heard: Tensor
    spread: Tensor
    bins: Tensor
    window: Tensor

    def __init__(self, settings: MelSettings) -> None:
        super().__init__()
        self.settings = settings
        bands = torch.from_numpy(
            librosa.filters.mel(
                sr=settings.sample_rate_hertz, n_fft=settings.n_fft, n_mels=settings.n_mels
            )
        )
        # How much each bin is heard, and what it is from what the bands that hear it are.
        heard = bands.sum(dim=0).clamp(min=SMALLEST_WEIGHT)
        widths = bands.sum(dim=1).clamp(min=SMALLEST_WEIGHT)
        window = librosa.filters.get_window("hann", settings.win_length)
        window = librosa.util.pad_center(window, size=settings.n_fft)
        window /= np.square(window).sum() / settings.hop_length
        self.register_buffer("bands", bands, persistent=False)
        self.register_buffer("heard", heard, persistent=False)
        self.register_buffer("spread", bands / widths[:, None] / heard, persistent=False)
        self.register_buffer("bins", torch.arange(bands.shape[1]), persistent=False)
        self.register_buffer("window", torch.from_numpy(window).float(), persistent=False)

    def draw_turns(self, seeds: Sequence[int]) -> Tensor:
        """The phases that each item begins with, (B, bins) float64 in turns, on the CPU."""
        drawn = [np.random.default_rng(seed).random(len(self.bins)) for seed in seeds]
        return torch.from_numpy(np.stack(drawn))

    @torch.no_grad()
    def forward(
        self, mel: Tensor, turn: Tensor, checkpoint: Callable[[], None] = lambda: None
    ) -> Tensor:
        """The waveforms (B, frames * hop_length), float32, of log10 mels (B, n_mels, frames).

        `turn` is what `draw_turns` gives, on the device of `mel`. `checkpoint` is called before
        every BLOCK_FRAMES and raises to stop.
        """
        n_fft, hop = self.settings.n_fft, self.settings.hop_length
        frames = mel.shape[2]
        sound = mel.new_zeros(len(mel), (frames - 1) * hop + n_fft)
        for start in range(0, frames, BLOCK_FRAMES):
            checkpoint()
            magnitudes = self._magnitudes(mel[:, :, start : start + BLOCK_FRAMES])
            turns, turn = self._turns(magnitudes, turn)
            spectrum = torch.polar(magnitudes, turns.mul_(2 * torch.pi).float())
            # Phases are those of the middle of the frame, where the lobe of a peak has one sign.
            spectrum[..., 1::2] *= -1
            waves = torch.fft.irfft(spectrum, n_fft) * self.window
            length = (waves.shape[1] - 1) * hop + n_fft
            joined = F.fold(waves.mT, (1, length), (1, n_fft), stride=(1, hop))
            sound[:, start * hop : start * hop + length] += joined[:, 0, 0]
        return sound[:, self.settings.padding :][:, : frames * hop]

    def _magnitudes(self, mel: Tensor) -> Tensor:
        """(B, frames, bins): spectra that would have these mels.

        Each band is spread over its bins, and the bins then made to fit all bands by multiplicative
        updates: Lee & Seung, "Algorithms for Non-negative Matrix Factorization" (NIPS 2000).
        """
        wanted = torch.pow(10.0, mel).mT
        bins = (wanted @ self.spread).clamp_(min=QUIETEST_MAGNITUDE)
        for _ in range(UPDATES):
            missing = wanted / (bins @ self.bands.T).clamp_(min=QUIETEST_MAGNITUDE)
            bins = (bins * (missing @ self.bands) / self.heard).clamp_(min=QUIETEST_MAGNITUDE)
        return bins

    def _turns(self, magnitudes: Tensor, turn: Tensor) -> tuple[Tensor, Tensor]:
        """Phases in turns, (B, frames, bins), on from `turn`, (B, bins); and the last."""
        peak, frequency = self._peaks(magnitudes)
        advance = frequency.gather(-1, peak) * (self.settings.hop_length / self.settings.n_fft)
        turns = torch.empty_like(advance)
        for frame in range(magnitudes.shape[1]):
            turn = (turn.gather(-1, peak[:, frame]) + advance[:, frame]).remainder_(1.0)
            turns[:, frame] = turn
        return turns, turn

    def _peaks(self, magnitudes: Tensor) -> tuple[Tensor, Tensor]:
        """For each bin the nearest peak, and where between bins it would lie if it were one."""
        bins, last = self.bins, len(self.bins)
        log = magnitudes.double().log()
        left, inner, right = log[..., :-2], log[..., 1:-1], log[..., 2:]
        is_peak = F.pad((inner > left) & (inner >= right), (1, 1))
        below = torch.cummax(torch.where(is_peak, bins, -last), dim=-1).values
        above = torch.cummin(torch.where(is_peak, bins, 2 * last).flip(-1), dim=-1).values.flip(-1)
        nearest = torch.where(bins - below <= above - bins, below, above)
        nearest = torch.where((nearest < 0) | (nearest >= last), bins, nearest)
        # The top of the parabola through three logarithms.
        bend = left - 2 * inner + right
        offset = torch.where(bend.abs() > 1e-9, (left - right) / 2 / bend, 0.0)
        return nearest, bins + F.pad(offset.clamp(-0.5, 0.5), (1, 1))
