"""From noise, or from a sound, to new samples: UNAGAN sings log-mels, MelGAN voices them.

UNAGAN's mels are of clips whose peak is 1, so what it sings comes out near full scale; MelGAN ends
in a tanh, so nothing wraps or needs clipping. Levels are left as the models give them.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from services.audio.resampling import resample, to_mono
from services.errors import InvalidInputError, SettingsMismatchError
from services.synth.generation.singing import sing
from services.synth.generation.vocoding import Vocoder
from services.synth.mel import MelSettings, MelSpectrogram
from services.synth.melgan.generator import Generator
from services.synth.unagan.generator import Unagan

# Raised when the same request would be answered by other samples than before. Two numbers go up
# with it: ALGORITHM of services/gateway/stages/generate.py, which names the generated database (the
# new files would conflict with the old ones of the same name), and ALGORITHM of
# services/gateway/snapshot.py, which names the run (its markers tell of the old files).
ALGORITHM = 3

MEL_BLOCK_FRAMES = 4096

FloatArray = NDArray[np.float32]
Checkpoint = Callable[[], None]


class Synthesizer:
    """An UNAGAN and the MelGAN that voices it; the ids are for messages only."""

    def __init__(
        self, unagan: Unagan, vocoder: Generator | Vocoder, *, unagan_id: str, melgan_id: str
    ) -> None:
        """Raises SettingsMismatchError, naming both and what differs, unless the mels agree."""
        refuse_other_mels(unagan.settings.mel, vocoder.settings.mel, unagan_id, melgan_id)
        self.unagan = unagan
        self.vocoder = ready(vocoder)

    @property
    def sample_rate_hertz(self) -> int:
        """Rate of what comes out."""
        return self.unagan.settings.mel.sample_rate_hertz

    def frames(self, duration_samples: int) -> int:
        """Mel frames of a sound; InvalidInputError if it has no sample."""
        if duration_samples < 1:
            raise InvalidInputError("the duration is shorter than one sample", culprit="duration")
        hop = self.unagan.settings.mel.hop_length
        return max(-(-duration_samples // hop), self.vocoder.settings.shortest_frames)

    def pieces(
        self, duration_samples: int, seed: int, checkpoint: Checkpoint = lambda: None
    ) -> Iterator[FloatArray]:
        """A new sound in pieces, each (n,) float32 in (-1, 1); all noise comes from `seed`.

        Together they hold `duration_samples`. `checkpoint` is called before every step of either
        network and raises to stop.
        """
        mel = sing(self.unagan, self.frames(duration_samples), [seed], checkpoint)
        yield from voiced(self.vocoder, mel, vocoder_seed(seed), duration_samples, checkpoint)

    def generate(
        self, duration_samples: int, seed: int, checkpoint: Checkpoint = lambda: None
    ) -> FloatArray:
        """The whole of `pieces`, (duration_samples,) float32."""
        return np.concatenate(list(self.pieces(duration_samples, seed, checkpoint)))


def vocoder_seed(seed: int) -> int:
    """The seed, 64 bits, of MelGAN's noise; from `seed` itself it would be UNAGAN's noise again."""
    return int.from_bytes(hashlib.sha256(f"{seed}/vocoder".encode()).digest()[:8], "little")


def resynthesize(
    vocoder: Generator | Vocoder,
    samples: NDArray[np.floating[Any]],
    sample_rate_hertz: int,
    checkpoint: Checkpoint = lambda: None,
) -> FloatArray:
    """The vocoder's copy, (n,) float32 in (-1, 1), of (frames, channels) samples.

    They are mixed to mono and resampled to the vocoder's rate; the copy is as long as that.
    """
    rate = vocoder.settings.mel.sample_rate_hertz
    mono = resample(to_mono(samples)[:, None], sample_rate_hertz, rate)[:, 0]
    return np.concatenate(list(copied(vocoder, mono, checkpoint)))


def copied(
    vocoder: Generator | Vocoder, mono: FloatArray, checkpoint: Checkpoint = lambda: None
) -> Iterator[FloatArray]:
    """The vocoder's copy of `mono` (n,), at its rate, in pieces that together are as long."""
    settings = vocoder.settings.mel
    shortest = vocoder.settings.shortest_frames * settings.hop_length
    whole_hops = -(-len(mono) // settings.hop_length) * settings.hop_length
    padding = max(whole_hops, shortest, settings.shortest_samples) - len(mono)
    vocoder = ready(vocoder)
    mel = _mel_in_blocks(np.pad(mono, (0, padding)), settings, vocoder.device, checkpoint)
    yield from voiced(vocoder, mel, 0, len(mono), checkpoint)


def ready(vocoder: Generator | Vocoder) -> Vocoder:
    """The vocoder, made ready to sound if it is not yet."""
    return vocoder if isinstance(vocoder, Vocoder) else Vocoder(vocoder)


@torch.inference_mode()
def _mel_in_blocks(
    mono: FloatArray, settings: MelSettings, device: torch.device, checkpoint: Checkpoint
) -> torch.Tensor:
    """The mel spectrogram (1, n_mels, frames) of whole hops (n,), a block of frames at a time."""
    hop, frames = settings.hop_length, len(mono) // settings.hop_length
    # Frames so far from where a block is cut do not overlap its reflected edge.
    around = -(-settings.n_fft // hop)
    spectrogram = MelSpectrogram(settings).to(device)
    blocks = []
    for start in range(0, frames, MEL_BLOCK_FRAMES):
        checkpoint()
        stop = min(start + MEL_BLOCK_FRAMES, frames)
        first, last = max(start - around, 0), min(stop + around, frames)
        audio = torch.from_numpy(mono[first * hop : last * hop])[None, None].to(device)
        blocks.append(spectrogram(audio)[..., start - first : stop - first])
    return torch.cat(blocks, dim=2)


def refuse_other_mels(
    unagan: MelSettings, melgan: MelSettings, unagan_id: str, melgan_id: str
) -> None:
    """Raises SettingsMismatchError, naming both models and what differs, unless both are equal."""
    differences = [
        f"{field.name} is {getattr(unagan, field.name)} in {unagan_id} "
        f"and {getattr(melgan, field.name)} in {melgan_id}"
        for field in fields(MelSettings)
        if getattr(unagan, field.name) != getattr(melgan, field.name)
    ]
    if differences:
        raise SettingsMismatchError(
            f"these models do not go together: {'; '.join(differences)}", culprit=melgan_id
        )


def voiced(
    vocoder: Vocoder, mel: torch.Tensor, seed: int, sample_count: int, checkpoint: Checkpoint
) -> Iterator[FloatArray]:
    """What the vocoder makes of one mel (1, n_mels, frames), cut to `sample_count`, in pieces."""
    for chunk in vocoder.chunks(mel, [seed], checkpoint):
        piece: FloatArray = chunk[0, :sample_count].cpu().numpy()
        sample_count -= len(piece)
        if len(piece):
            yield piece
