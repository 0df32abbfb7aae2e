"""From noise, or from a sound, to new samples: UNAGAN sings log-mels, MelGAN voices them.

UNAGAN's mels are of clips whose peak is 1, so what it sings comes out near full scale; MelGAN ends
in a tanh, so nothing wraps or needs clipping. Levels are left as the models give them.
"""

import hashlib
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from services.audio.resampling import resample, to_mono
from services.errors import InvalidInputError, SettingsMismatchError
from services.synth.interruption import interruptible
from services.synth.mel import MelSettings, MelSpectrogram
from services.synth.melgan.generator import Generator as Vocoder
from services.synth.melgan.generator import vocode
from services.synth.unagan.generator import Unagan

# Raised when the same request would be answered by other samples than before. Two numbers go up
# with it: ALGORITHM of services/gateway/stages/generate.py, which names the generated database (the
# new files would conflict with the old ones of the same name), and ALGORITHM of
# services/gateway/snapshot.py, which names the run (its markers tell of the old files).
ALGORITHM = 2

FloatArray = NDArray[np.float32]
Checkpoint = Callable[[], None]


class Synthesizer:
    """An UNAGAN and the MelGAN that voices it; the ids are for messages only."""

    def __init__(self, unagan: Unagan, vocoder: Vocoder, *, unagan_id: str, melgan_id: str) -> None:
        """Raises SettingsMismatchError, naming both and what differs, unless the mels agree."""
        refuse_other_mels(unagan.settings.mel, vocoder.settings.mel, unagan_id, melgan_id)
        self._unagan = unagan
        self._vocoder = vocoder

    @property
    def sample_rate_hertz(self) -> int:
        """Rate of what comes out."""
        return self._unagan.settings.mel.sample_rate_hertz

    def generate(
        self, duration_samples: int, seed: int, checkpoint: Checkpoint = lambda: None
    ) -> FloatArray:
        """A new sound, (duration_samples,) float32 in (-1, 1); all noise comes from `seed`.

        `checkpoint` is called before every step of either network and raises to stop.
        """
        if duration_samples < 1:
            raise InvalidInputError("the duration is shorter than one sample", culprit="duration")
        hop = self._unagan.settings.mel.hop_length
        frames = max(-(-duration_samples // hop), self._vocoder.settings.shortest_frames)
        with interruptible(self._unagan.generator, checkpoint):
            mel = self._unagan.sing(frames, [seed], checkpoint)
        return _voiced(self._vocoder, mel, vocoder_seed(seed), duration_samples, checkpoint)


def vocoder_seed(seed: int) -> int:
    """The seed, 64 bits, of MelGAN's noise; from `seed` itself it would be UNAGAN's noise again."""
    return int.from_bytes(hashlib.sha256(f"{seed}/vocoder".encode()).digest()[:8], "little")


def resynthesize(
    vocoder: Vocoder,
    samples: NDArray[np.floating[Any]],
    sample_rate_hertz: int,
    checkpoint: Checkpoint = lambda: None,
) -> FloatArray:
    """The vocoder's copy, (n,) float32 in (-1, 1), of (frames, channels) samples.

    They are mixed to mono and resampled to the vocoder's rate; the copy is as long as that.
    """
    settings = vocoder.settings.mel
    mono = resample(to_mono(samples)[:, None], sample_rate_hertz, settings.sample_rate_hertz)[:, 0]
    shortest = vocoder.settings.shortest_frames * settings.hop_length
    whole_hops = -(-len(mono) // settings.hop_length) * settings.hop_length
    padding = max(whole_hops, shortest, settings.shortest_samples) - len(mono)
    checkpoint()
    device = next(vocoder.parameters()).device
    audio = torch.from_numpy(np.pad(mono, (0, padding)))[None, None].to(device)
    with torch.inference_mode():
        mel = MelSpectrogram(settings).to(device)(audio)
    return _voiced(vocoder, mel, 0, len(mono), checkpoint)


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


def _voiced(
    vocoder: Vocoder, mel: torch.Tensor, seed: int, sample_count: int, checkpoint: Checkpoint
) -> FloatArray:
    checkpoint()
    with interruptible(vocoder, checkpoint):
        samples: FloatArray = vocode(vocoder, mel, [seed])[0, 0, :sample_count].cpu().numpy()
    checkpoint()
    return samples
