"""Whether what is predicted is new: how near its windows are to the nearest ones of the training.

Held-out music tells how near music may be that is no copy.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from services.errors import InvalidInputError

Array = NDArray[np.float64]

WINDOW_FRAMES = 20
BLOCK_WINDOWS = 4096
QUANTILES = (1, 10, 50)
"""Percent."""


def windows_of(sequences: Sequence[NDArray[np.floating]], count: int) -> NDArray[np.float32]:
    """At most `count` windows (n, 20 frames * features), evenly spread over (frames, features)."""
    rooms = [max(len(sequence) - WINDOW_FRAMES + 1, 0) for sequence in sequences]
    ends, total = np.cumsum(rooms), sum(rooms)
    ranks = ((np.arange(min(count, total)) + 0.5) * total / max(min(count, total), 1)).astype(int)
    numbers = np.searchsorted(ends, ranks, side="right")
    cut = [
        sequences[number][start : start + WINDOW_FRAMES].ravel()
        for number, start in zip(
            numbers, ranks - (ends - rooms)[numbers] if total else ranks, strict=True
        )
    ]
    if not cut:
        raise InvalidInputError(
            f"no sequence has the {WINDOW_FRAMES} frames of a window", culprit="frames"
        )
    return np.stack(cut).astype(np.float32)


def nearest(windows: NDArray[np.float32], known: Sequence[NDArray[np.floating]]) -> Array:
    """How far each window is from the nearest one anywhere in the known sequences.

    The root mean square over frames and features, in their units: 0 is a copy. All windows of all
    sequences are looked at, in blocks of bounded memory.
    """
    width = windows.shape[1]
    best = np.full(len(windows), np.inf)
    where = np.zeros((len(windows), width), dtype=np.float32)
    own = np.square(windows).sum(axis=1)
    for sequence in known:
        frames = np.ascontiguousarray(sequence, dtype=np.float32)
        features = frames.shape[1]
        for first in range(0, len(frames) - WINDOW_FRAMES + 1, BLOCK_WINDOWS):
            piece = frames[first : first + BLOCK_WINDOWS + WINDOW_FRAMES - 1]
            views = np.lib.stride_tricks.sliding_window_view(piece, (WINDOW_FRAMES, features))
            block = views.reshape(-1, width)
            squares = np.square(block).sum(axis=1) - 2 * windows @ block.T
            nearest_here = squares.argmin(axis=1)
            found = squares[np.arange(len(windows)), nearest_here] + own
            nearer = found < best
            best[nearer] = found[nearer]
            where[nearer] = block[nearest_here[nearer]]
    # Products cancel: of a copy they would leave some hundredths.
    exact: Array = np.sqrt(np.square(windows.astype(np.float64) - where).mean(axis=1))
    return exact


def novelty(generated: Array, recorded: Array) -> dict[str, float]:
    """Figures of two sets of `nearest` distances, of what was generated and of held-out music.

    - `nearest_window_<q>`: the q-th percentile of the generated ones, `…_least` the least;
    - `recorded_nearest_window_<q>`: the same of held-out music;
    - `near_copy_share`: the share of generated windows that are nearer to the training part than
      99 % of held-out windows are: 0.01 is what music has.
    """
    figures = {}
    for prefix, distances in (("", generated), ("recorded_", recorded)):
        figures[f"{prefix}nearest_window_least"] = float(distances.min())
        for quantile in QUANTILES:
            value = float(np.percentile(distances, quantile))
            figures[f"{prefix}nearest_window_{quantile}"] = value
    bound = np.percentile(recorded, 1)
    figures["near_copy_share"] = float((generated < bound).mean())
    return figures
