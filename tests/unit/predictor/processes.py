"""A stationary process that is neither linear nor Gaussian, as 39 features of made-up sounds."""

import numpy as np

from services.audio.track import DescriptorTrack
from services.predictor.deltas import names_with_deltas, with_deltas

STATICS = tuple(f"mfcc{i}" for i in range(13))
LEAVING = np.array([1 / 30, 1 / 30])
"""How likely the calm and the lively regime are to end with a frame."""
NOISE = np.array([0.12, 0.6])
ATTACK_SHARE = 1 / 40
BURN_IN_FRAMES = 200


def switching(count: int, frames: int, *, seed: int) -> list[DescriptorTrack]:
    """`count` tracks of a hidden Markov chain between two autoregressions, and of attacks.

    The calm regime sinks slowly to one level with little noise, the lively one circles about
    another with much. An attack lifts many features at once, and decays.
    """
    fixed = np.random.default_rng(13)
    mixing = np.linalg.qr(fixed.standard_normal((13, 13)))[0]
    levels = 0.25 * fixed.standard_normal((2, 13))
    pulls = np.stack([0.95 * np.eye(13), 0.7 * _circling(fixed.uniform(0.3, 1.2, 6))])
    attack = np.abs(fixed.standard_normal(13))
    random = np.random.default_rng(seed)
    regimes = random.integers(2, size=count)
    state = np.zeros((count, 13))
    statics = np.empty((count, frames, 13))
    for frame in range(-BURN_IN_FRAMES, frames):
        regimes ^= random.random(count) < LEAVING[regimes]
        away = (state - levels[regimes])[:, :, np.newaxis]
        state = levels[regimes] + (pulls[regimes] @ away)[:, :, 0]
        state += NOISE[regimes, np.newaxis] * random.standard_normal((count, 13))
        attacked = random.random(count) < ATTACK_SHARE
        sizes = attacked * random.uniform(0.7, 1.3, count)
        state += sizes[:, np.newaxis] * attack
        if frame >= 0:
            statics[:, frame] = state
    values = with_deltas(20 * statics @ mixing - 5).astype(np.float32)
    names = names_with_deltas(STATICS)
    return [
        DescriptorTrack(names, each, 44100, 1024, f"{seed}_{number}.wav")
        for number, each in enumerate(values)
    ]


def _circling(angles: np.ndarray) -> np.ndarray:
    """(13, 13): pairs of features turned by these angles, the last one left alone."""
    turning = np.eye(13)
    for number, angle in enumerate(angles):
        pair = slice(2 * number, 2 * number + 2)
        turning[pair, pair] = [
            [np.cos(angle), -np.sin(angle)],
            [np.sin(angle), np.cos(angle)],
        ]
    return turning
