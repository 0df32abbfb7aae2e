"""What an UNAGAN in training sounds like, voiced by Griffin-Lim: it has no vocoder of its own."""

import numpy as np
from numpy.typing import NDArray

from services.synth.corpus.clips import Clip
from services.synth.griffin_lim import LOUDEST_LOG_MAGNITUDE, griffin_lim
from services.synth.mel import QUIETEST_MAGNITUDE
from services.synth.unagan.generator import Unagan

SEEDS = (0, 1)
GENERATED_SECONDS = 1.5
RECORDED_SECONDS = 3.0
# Half of what judging takes: this is heard while the training waits.
ITERATIONS = 16


def examples(unagan: Unagan, held_out: Clip) -> dict[str, tuple[NDArray[np.float32], int]]:
    """The beginning of an audible clip at full scale, and sound of some seeds, always the same.

    Mono samples in [-1, 1] and their rate, by name.
    """
    mel = unagan.settings.mel
    rate = mel.sample_rate_hertz
    recording = held_out.samples[: round(RECORDED_SECONDS * rate)] / np.float32(held_out.peak)
    sounds = {f"recording/{held_out.name}": (recording, rate)}
    frames = max(round(GENERATED_SECONDS * rate / mel.hop_length), 1)
    quietest = np.log10(QUIETEST_MAGNITUDE)
    for seed, song in zip(SEEDS, unagan.sing(frames, SEEDS).cpu().numpy(), strict=True):
        # A generator that has come apart gives numbers that no sound has.
        heard = np.nan_to_num(song, nan=quietest, posinf=LOUDEST_LOG_MAGNITUDE, neginf=quietest)
        voiced = griffin_lim(heard, mel, iterations=ITERATIONS, seed=seed)
        # Louder than full scale it would be heard clipped, which no mel says.
        sounds[f"generated/{seed}"] = (voiced / max(np.abs(voiced).max(), np.float32(1)), rate)
    return sounds
