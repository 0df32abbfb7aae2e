"""Deltas and delta-deltas of MFCCs, as `librosa.feature.delta` computes them (width 9).

A delta looks four frames ahead. So a model that is shown the deltas of its window is told what the
next frames are, learns that, and knows nothing once it hears only itself. One that knows the static
coefficients alone has to learn how they go on, and its deltas follow.
"""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.signal import savgol_filter

WIDTH = 9
"""Frames that a slope is fitted to."""
REACH = WIDTH // 2
"""Frames on either side that a delta looks at."""
_NAME = re.compile(r"mfcc(\d+)")


def statics_of(feature_names: Sequence[str]) -> tuple[str, ...]:
    """The static third of mfcc0…mfcc{3n-1}, in the order of their numbers; () for others."""
    numbers = sorted(int(match[1]) for name in feature_names if (match := _NAME.fullmatch(name)))
    whole = numbers == list(range(len(feature_names)))
    if not whole or not numbers or len(numbers) % 3:
        return ()
    return tuple(f"mfcc{number}" for number in range(len(numbers) // 3))


def names_with_deltas(statics: Sequence[str]) -> tuple[str, ...]:
    """The columns of `with_deltas`: mfcc0…mfcc{3n-1}."""
    return tuple(f"mfcc{number}" for number in range(3 * len(statics)))


def with_deltas(statics: NDArray[np.floating]) -> NDArray[np.float64]:
    """Statics (…, frames, n), their deltas and their delta-deltas side by side: (…, frames, 3n).

    The first and last four frames have the slopes of the polynomials fitted to the outermost nine,
    so there must be nine.
    """
    exact = statics.astype(np.float64)
    slopes = [
        savgol_filter(exact, WIDTH, polyorder=order, deriv=order, axis=-2, mode="interp")
        for order in (1, 2)
    ]
    together: NDArray[np.float64] = np.concatenate([exact, *slopes], axis=-1)
    return together
