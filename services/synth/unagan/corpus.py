"""What UNAGAN learns from: the log-mels of a corpus, z-scored band by band.

Every clip is peak-normalised by itself. Clips shorter than a crop are looped to its length, since
padding would teach silence. Crops are drawn so that every moment of the corpus is equally likely.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from services.errors import InvalidInputError
from services.learning.array_cache import ArrayCache
from services.synth.corpus.augmentation import Augmentation
from services.synth.corpus.clips import Clip, split_clips
from services.synth.corpus.mel_preparation import PreparedMel, prepare_mels
from services.synth.mel import MelSpectrogram
from services.synth.unagan.training_settings import UnaganTraining

# 0.01 of log10 is 0.2 dB: a band that hardly moves is not blown up to what is heard.
MIN_DEVIATION = 0.01


class Corpus:
    """Z-scored log-mels of audible clips, each at least a crop long; `mean`, `std`: (n_mels,).

    The mels are made once, and kept in the cache if there is one. `tell` hears how many clips of
    how many are done. Augmented crops differ every time, so their mels are made as they are drawn,
    of samples that may lie in a file; `mean` and `std` are those of the clips as they are.
    """

    def __init__(
        self,
        settings: UnaganTraining,
        clips: Sequence[Clip],
        statistics: tuple[Tensor, Tensor] | None = None,
        cache: ArrayCache | None = None,
        tell: Callable[[int, int], None] = lambda done, total: None,  # noqa: ARG005 - tells nobody
    ) -> None:
        self.clips = clips
        self.frames = settings.segment_frames
        self._augmentation = settings.augmentation
        self._spectrogram = MelSpectrogram(settings.networks.mel)
        prepared = prepare_mels(clips, settings.networks.mel, self.frames, cache=cache, tell=tell)
        self._mels = [clip.mel for clip in prepared]
        lengths = np.array([clip.samples.size for clip in clips], np.float64)
        self._weights = lengths / lengths.sum()
        self.mean, self.std = statistics or _moments(prepared, self._weights)

    def crop(self, random: np.random.Generator) -> Tensor:
        """(n_mels, frames), every moment of the corpus equally likely."""
        clip = int(random.choice(self._weights.size, p=self._weights))
        if not self._augmentation.is_off:
            return self._mel_of(self._augmented(self.clips[clip], random))
        start = int(random.integers(self._mels[clip].shape[1] - self.frames + 1))
        return self._z_scored(self._mels[clip], start)

    def batches(self, batch: int, most: int | None = None) -> list[Tensor]:
        """All crops side by side: (at most batch, n_mels, frames) each.

        If they are more than `most`, so many of them, taken evenly.
        """
        places = [
            (mel, start)
            for mel in self._mels
            for start in range(0, mel.shape[1] - self.frames + 1, self.frames)
        ]
        if most is not None and len(places) > most:
            taken = np.linspace(0, len(places) - 1, most).round().astype(int)
            places = [places[number] for number in taken]
        crops = [self._z_scored(mel, start) for mel, start in places]
        return [torch.stack(crops[i : i + batch]) for i in range(0, len(crops), batch)]

    def _augmented(self, clip: Clip, random: np.random.Generator) -> NDArray[np.float32]:
        """Samples of a crop and of the margins beside it, as loud as if the clip's peak were 1."""
        hop = self._spectrogram.settings.hop_length
        length = (self.frames + 2 * self._margin) * hop
        # Enough for a crop at the highest speed.
        shortest = math.ceil((length + hop) * (1 + self._augmentation.speed))
        samples = clip.samples
        if samples.size < shortest:
            samples = np.resize(samples, shortest)
        return self._augmentation.crop(samples, length, random, peak=clip.peak)

    def _mel_of(self, samples: NDArray[np.float32]) -> Tensor:
        """The z-scored mel of a crop with its margins."""
        with torch.no_grad():
            mel: Tensor = self._spectrogram(torch.from_numpy(samples)[None, None])
        return self._z_scored(mel[0].numpy(), self._margin)

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


def split_corpus(
    settings: UnaganTraining,
    clips: Sequence[Clip],
    seed: int,
    *,
    cache: ArrayCache | None = None,
    tell: Callable[[int, int], None] = lambda done, total: None,  # noqa: ARG005 - tells nobody
) -> tuple[Corpus, Corpus]:
    """What is learned, and what is held out: never augmented, z-scored as what is learned.

    Raises InvalidInputError if no clip can be heard.
    """
    heard = audible(clips)
    if not heard:
        raise InvalidInputError("no clip holds any sound: there is nothing to learn from")
    training, validation = split_clips(heard, settings.validation_share, seed)
    # Of a single file, one side of the split may be silent.
    training, validation = audible(training) or heard, audible(validation) or heard
    count = len(training) + len(validation)
    learned = Corpus(settings, training, cache=cache, tell=lambda done, _: tell(done, count))
    held_out = Corpus(
        replace(settings, augmentation=Augmentation()),
        validation,
        (learned.mean, learned.std),
        cache,
        lambda done, _: tell(len(training) + done, count),
    )
    return learned, held_out


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
