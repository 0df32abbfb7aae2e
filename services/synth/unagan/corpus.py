"""What UNAGAN learns from: the log-mels of a corpus, z-scored band by band.

Every clip is peak-normalised by itself. Clips shorter than a crop are looped to its length, since
padding would teach silence. Crops are drawn so that every moment of the corpus is equally likely.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from services.synth.corpus.array_cache import ArrayCache
from services.synth.corpus.clips import Clip
from services.synth.corpus.mel_preparation import PreparedMel, peak_normalised, prepare_mels
from services.synth.mel import MelSpectrogram
from services.synth.unagan.training_settings import UnaganTraining

# 0.01 of log10 is 0.2 dB: a band that hardly moves is not blown up to what is heard.
MIN_DEVIATION = 0.01


class Corpus:
    """Z-scored log-mels of audible clips, each at least a crop long; `mean`, `std`: (n_mels,).

    The mels are made once, and kept in the cache if there is one. Augmented crops differ every
    time, so their sound lies in memory and their mels are made as they are drawn; `mean` and `std`
    are those of the clips as they are.
    """

    def __init__(
        self,
        settings: UnaganTraining,
        clips: Sequence[Clip],
        statistics: tuple[Tensor, Tensor] | None = None,
        cache: ArrayCache | None = None,
    ) -> None:
        self.frames = settings.segment_frames
        self._augmentation = settings.augmentation
        self._spectrogram = MelSpectrogram(settings.networks.mel)
        prepared = prepare_mels(clips, settings.networks.mel, self.frames, cache=cache)
        self._mels = [clip.mel for clip in prepared]
        lengths = np.array([clip.samples.size for clip in clips], np.float64)
        self._weights = lengths / lengths.sum()
        self.mean, self.std = statistics or _moments(prepared, self._weights)
        self._sounds = [] if self._augmentation.is_off else [self._sound(clip) for clip in clips]

    def crop(self, random: np.random.Generator) -> Tensor:
        """(n_mels, frames), every moment of the corpus equally likely."""
        clip = int(random.choice(self._weights.size, p=self._weights))
        if self._sounds:
            return self._augmented(self._sounds[clip], random)
        start = int(random.integers(self._mels[clip].shape[1] - self.frames + 1))
        return self._z_scored(self._mels[clip], start)

    def batches(self, batch: int) -> list[Tensor]:
        """Everything in crops side by side: (at most batch, n_mels, frames) each."""
        crops = [
            self._z_scored(mel, start)
            for mel in self._mels
            for start in range(0, mel.shape[1] - self.frames + 1, self.frames)
        ]
        return [torch.stack(crops[i : i + batch]) for i in range(0, len(crops), batch)]

    def _augmented(self, sound: NDArray[np.float32], random: np.random.Generator) -> Tensor:
        length = (self.frames + 2 * self._margin) * self._spectrogram.settings.hop_length
        crop = torch.from_numpy(self._augmentation.crop(sound, length, random))
        with torch.no_grad():
            mel: Tensor = self._spectrogram(crop[None, None])
        return self._z_scored(mel[0].numpy(), self._margin)

    def _sound(self, clip: Clip) -> NDArray[np.float32]:
        """The clip with its peak at 1, long enough for a crop at the highest speed."""
        length = (self.frames + 2 * self._margin + 1) * self._spectrogram.settings.hop_length
        return peak_normalised(clip, math.ceil(length * (1 + self._augmentation.speed)))

    @property
    def _margin(self) -> int:
        # Frames within n_fft / 2 of an end see its reflection, which is not in the recording.
        mel = self._spectrogram.settings
        return -(-mel.n_fft // 2 // mel.hop_length)

    def _z_scored(self, mel: NDArray[np.float32], start: int) -> Tensor:
        # What is kept is read-only and may lie in a file, frame by frame: a crop is a copy.
        crop = torch.from_numpy(np.array(mel[:, start : start + self.frames], order="C"))
        return (crop - self.mean[:, None]) / self.std[:, None]


def audible(clips: Sequence[Clip]) -> list[Clip]:
    """The clips that are not silent throughout."""
    return [clip for clip in clips if clip.peak]


def _moments(
    prepared: Sequence[PreparedMel], weights: NDArray[np.float64]
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each band, (n_mels,), each clip counting by its weight."""
    means = np.stack([clip.mean for clip in prepared])
    variances = np.stack([clip.variance for clip in prepared])
    mean = weights @ means
    variance = weights @ (variances + np.square(means - mean))
    deviation = np.sqrt(variance).clip(min=MIN_DEVIATION)
    return torch.from_numpy(mean).float(), torch.from_numpy(deviation).float()
