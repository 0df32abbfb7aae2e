"""A direct linear forecast: each frame ahead told at once, not by way of those before it.

An extra baseline, for squared error favours it: nothing is fed back, so nothing can build up
(Marcellino, Stock and Watson, 2006, compare both ways). It flattens as every such forecast does.
"""

from collections.abc import Sequence

import numpy as np
from scipy.linalg import solve

from services.predictor.deltas import WIDTH
from services.predictor.evaluation.baselines import Array, StaticBaseline
from services.predictor.evaluation.material import Material

LAST_FRAMES = 4
RIDGE = 1e-3
"""A multiple of the number of frames."""
BLOCK_FRAMES = 4096
KNOTS = (1, 2, 3, 4, 6, 8, 10, 16, 32, 64, 100, 128, 256, 500)


class DirectForecast(StaticBaseline):
    """Ridge regressions from a window's last frames and its mean to KNOTS frames ahead.

    Between the knots it interpolates, beyond the last one it stays. It knows the static
    coefficients alone where the features are MFCCs, and their deltas are computed.
    """

    def __init__(self, material: Material, window_frames: int) -> None:
        """Fits to windows of that length, at least the 9 frames that deltas look back.

        Knots that no training track is long enough for are left out.
        """
        super().__init__(material)
        self._window_frames = max(window_frames, WIDTH, LAST_FRAMES)
        longest = max(track.frame_count for track in material.training)
        self._knots = [knot for knot in KNOTS if self._window_frames + knot <= longest // 2] or [1]
        self._weights = self._fitted(material)

    @property
    def size_bytes(self) -> int:
        """Memory of its coefficients."""
        return self._weights.nbytes

    def _fitted(self, material: Material) -> Array:
        """(knots, heard, features): one regression each, by their normal equations."""
        width = 1 + (LAST_FRAMES + 1) * self._static_count
        grams = np.zeros((len(self._knots), width, width))
        products = np.zeros((len(self._knots), width, self._static_count))
        for track in material.training:
            scored = material.scored(track.values)[:, : self._static_count]
            inside = material.regular(track)
            sums = np.concatenate([np.zeros((1, self._static_count)), scored.cumsum(axis=0)])
            for first in range(self._window_frames, track.frame_count, BLOCK_FRAMES):
                ends = np.arange(first, min(first + BLOCK_FRAMES, track.frame_count))
                means = (sums[ends] - sums[ends - self._window_frames]) / self._window_frames
                design = _design(scored[ends[:, np.newaxis] - np.arange(1, LAST_FRAMES + 1)], means)
                for number, knot in enumerate(self._knots):
                    known = ends[ends + knot - 1 < track.frame_count]
                    rows = design[: len(known)] * inside[known + knot - 1][:, np.newaxis]
                    grams[number] += rows.T @ rows
                    products[number] += rows.T @ scored[known + knot - 1]
        return np.stack(
            [
                solve(
                    gram + np.diag(np.r_[1e-9, np.full(width - 1, RIDGE * max(gram[0, 0], 1))]),
                    product,
                    assume_a="pos",
                )
                for gram, product in zip(grams, products, strict=True)
            ]
        )

    @property
    def _heard_frames(self) -> int:
        return self._window_frames

    def _told(
        self,
        statics: Array,
        steps: int,
        seeds: Sequence[int],  # noqa: ARG002
        temperature: float,  # noqa: ARG002
    ) -> Array:
        design = _design(statics[:, : -LAST_FRAMES - 1 : -1], statics.mean(axis=1))
        told = np.einsum("bw,kwe->bke", design, self._weights)
        ahead = np.arange(1, steps + 1)
        # Which knots are around each frame, and how much the later one counts.
        places = np.interp(ahead, self._knots, np.arange(len(self._knots)))
        before = places.astype(np.int64)
        after = np.minimum(before + 1, len(self._knots) - 1)
        share = (places - before)[:, np.newaxis]
        line: Array = told[:, before] * (1 - share) + told[:, after] * share
        return line


def _design(last: Array, means: Array) -> Array:
    """(n, 1 + (frames + 1) * features) of the last frames (n, frames, features) and the means."""
    return np.concatenate([np.ones((len(last), 1)), last.reshape(len(last), -1), means], axis=1)
