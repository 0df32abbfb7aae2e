"""Many new sounds of equal length from the same models, several in one pass.

UNAGAN's recurrences cost a batch hardly more than one item. MelGAN fills a processor with one
sound alone, so on a CPU its items follow each other, in the cache; a GPU takes them together.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from services.errors import CancelledError, DemiurgeError, TimeExceededError
from services.synth.generation.singing import sing
from services.synth.generation.synthesizer import (
    Checkpoint,
    FloatArray,
    Synthesizer,
    vocoder_seed,
    voiced,
)

# Mel frames sung at once, over all items: they bound the memory, of which UNAGAN's published size
# takes about 10 KiB a frame.
FRAMES_AT_ONCE = 2**15

Outcome = FloatArray | DemiurgeError


def generate_each(
    synthesizer: Synthesizer,
    duration_samples: int,
    seeds: Sequence[int],
    checkpoint: Checkpoint = lambda: None,
) -> Iterator[Outcome]:
    """For each seed its sound, (duration_samples,) float32 in (-1, 1), or why there is none.

    The samples are those of `Synthesizer.generate` within 1e-5: sums of a batch have another
    order. Each sound is there as soon as it is finished, and one that fails, fails alone.
    `checkpoint` is as in `generate`; what it raises ends all.
    """
    at_once = max(1, FRAMES_AT_ONCE // synthesizer.frames(duration_samples))
    for start in range(0, len(seeds), at_once):
        group = seeds[start : start + at_once]
        finished = 0
        try:
            for sound in _together(synthesizer, duration_samples, group, checkpoint):
                yield sound
                finished += 1
        except (CancelledError, TimeExceededError):
            raise
        except (DemiurgeError, RuntimeError):
            # One item may have failed, or the memory of the batch: each is tried alone.
            for seed in group[finished:]:
                yield _alone(synthesizer, duration_samples, seed, checkpoint)


def _together(
    synthesizer: Synthesizer, duration_samples: int, seeds: Sequence[int], checkpoint: Checkpoint
) -> Iterator[FloatArray]:
    unagan, frames = synthesizer.unagan, synthesizer.frames(duration_samples)
    vocoder, own_seeds = synthesizer.vocoder, [vocoder_seed(seed) for seed in seeds]
    if vocoder.settings.excitation:
        # It follows spectral peaks: a last bit may choose another, and with it all further phases.
        mels = torch.cat([sing(unagan, frames, [seed], checkpoint) for seed in seeds])
    else:
        mels = sing(unagan, frames, seeds, checkpoint)
    if vocoder.device.type != "cpu":
        sounds = torch.cat(list(vocoder.chunks(mels, own_seeds, checkpoint)), dim=1)
        yield from sounds[:, :duration_samples].cpu().numpy()
        return
    for mel, seed in zip(mels, own_seeds, strict=True):
        pieces = voiced(vocoder, mel[None], seed, duration_samples, checkpoint)
        yield np.concatenate(list(pieces))


def _alone(
    synthesizer: Synthesizer, duration_samples: int, seed: int, checkpoint: Checkpoint
) -> Outcome:
    try:
        return synthesizer.generate(duration_samples, seed, checkpoint)
    except (CancelledError, TimeExceededError):
        raise
    except DemiurgeError as error:
        return error
    except RuntimeError as error:
        failure = DemiurgeError(f"seed {seed}: {error}")
        failure.__cause__ = error
        return failure
