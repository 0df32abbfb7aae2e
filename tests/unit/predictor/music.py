"""Descriptors to train on: 39 features as they come from sound, but made up."""

import numpy as np

from services.audio.track import DescriptorTrack
from services.predictor.deltas import names_with_deltas, with_deltas

STATICS = tuple(f"mfcc{i}" for i in range(13))


def tracks(count: int, frames: int) -> list[DescriptorTrack]:
    """Walks that return, each about a level of its own, with their deltas."""
    random = np.random.default_rng(5)
    made = []
    for number in range(count):
        level = random.standard_normal(13)
        statics = np.empty((frames, 13))
        statics[0] = level
        for i in range(1, frames):
            pull = 0.1 * (level - statics[i - 1])
            statics[i] = statics[i - 1] + pull + 0.3 * random.standard_normal(13)
        values = with_deltas(20 * statics).astype(np.float32)
        names = names_with_deltas(STATICS)
        made.append(DescriptorTrack(names, values, 44100, 1024, f"{number}.wav"))
    return made
