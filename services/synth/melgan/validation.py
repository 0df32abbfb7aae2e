"""How well a generator in training copies the clips kept back, and how that sounds."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from services.synth.corpus.clips import Clip
from services.synth.mel import MelSpectrogram
from services.synth.melgan.generator import Generator, MelGanSettings, vocode

PIECE_SECONDS = 4.0
"""What is vocoded at once, so that longer clips need no more memory."""
EXAMPLES = 2
EXAMPLE_SECONDS = 5.0


class CopySynthesis:
    """Copies of `clips`, or of their first `seconds`, by way of their mels."""

    def __init__(
        self, clips: Sequence[Clip], settings: MelGanSettings, mel: MelSpectrogram, seconds: float
    ) -> None:
        self._clips = clips
        self._settings = settings
        self._mel = mel
        self._rate = settings.mel.sample_rate_hertz
        self._samples = max(round(seconds * self._rate), 1)

    def mel_error(self, generator: Generator) -> float:
        """Mean absolute log10-mel difference of the copies; waits for the device once."""
        total = torch.zeros((), device=self._mel.window.device)
        frames = 0
        for audio in self._pieces():
            mel, copied = self._mel(audio), self._mel(self._copy(generator, audio))
            total += (copied - mel).abs().mean() * mel.shape[2]
            frames += mel.shape[2]
        return float(total) / frames

    def examples(self, generator: Generator) -> dict[str, tuple[NDArray[np.float32], int]]:
        """The first seconds of some clips, and of their copies: mono samples and their rate."""
        sounds = {}
        for clip in self._clips[:EXAMPLES]:
            audio = self._whole_hops(clip.samples[: round(EXAMPLE_SECONDS * self._rate)])
            for kind, sound in ("recording", audio), ("copy", self._copy(generator, audio)):
                sounds[f"{kind}/{clip.name}"] = sound[0, 0].cpu().numpy(), self._rate
        return sounds

    def _copy(self, generator: Generator, audio: Tensor) -> Tensor:
        was_training = generator.training
        copy = vocode(generator.eval(), self._mel(audio))
        # cuDNN refuses a gradient of recurrent layers that are not in training.
        generator.train(was_training)
        return copy

    def _pieces(self) -> Iterator[Tensor]:
        left = self._samples
        piece = round(PIECE_SECONDS * self._rate)
        for clip in self._clips:
            heard = clip.samples[:left]
            for start in range(0, heard.size, piece):
                yield self._whole_hops(heard[start : start + piece])
            left -= heard.size
            if not left:
                return

    def _whole_hops(self, samples: NDArray[np.float32]) -> Tensor:
        """These samples and silence, as many as can be vocoded: (1, 1, samples) on the device."""
        mel = self._settings.mel
        shortest = mel.hop_length * self._settings.shortest_frames
        length = max(samples.size, shortest, mel.shortest_samples)
        whole = -(-length // mel.hop_length) * mel.hop_length
        padded = F.pad(torch.from_numpy(samples.copy()), (0, whole - samples.size))
        return padded[None, None].to(self._mel.window.device)
