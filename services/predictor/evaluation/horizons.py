"""How far predictions are from what came, at exactly so many frames ahead."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

WITH_STANDARD_ERROR = (10, 100)
"""Horizons whose error is given with its standard error over files."""


@dataclass(frozen=True, eq=False)
class Answers:
    """What came at each place and horizon, in z-scores.

    `values` are (places, horizons, features), `counts` (places, horizons) is False where what came
    is an outlier, which is then left out for all predictors alike. `files` (places,) tells which
    file a place is of, `static_count` how many of the first features are statics.
    """

    horizons: tuple[int, ...]
    values: Array
    counts: NDArray[np.bool_]
    files: NDArray[np.int64]
    static_count: int

    def errors(self, told: Array) -> dict[str, float]:
        """`error_<h>`, `static_error_<h>` and the standard errors of (places, horizons, features).

        Mean squared errors: 1 is the variance of the training part. The standard error is that of
        a mean over files, which differ more than places of the same file do; files are few.
        """
        squares = np.square(told - self.values)
        figures = {}
        for number, ahead in enumerate(self.horizons):
            counted = self.counts[:, number]
            each = squares[counted, number]
            figures[f"error_{ahead}"] = float(each.mean())
            figures[f"static_error_{ahead}"] = float(each[:, : self.static_count].mean())
            if ahead in WITH_STANDARD_ERROR:
                files = self.files[counted]
                for prefix, of in (("", each), ("static_", each[:, : self.static_count])):
                    error = standard_error(of.mean(axis=1), files)
                    figures[f"{prefix}error_{ahead}_standard_error"] = error
        return figures

    def below(self, told: Array, reference: Array) -> dict[str, float]:
        """`error_<h>_below_autoregression`: how much smaller the error is than the reference's.

        The mean over places of what the squared errors of (places, horizons, features) differ by,
        above 0 where `told` is better. Both err at the same places, so its standard error, over
        files, is much smaller than those of the errors. The same of the statics.
        """
        gained = np.square(reference - self.values) - np.square(told - self.values)
        figures = {}
        for number, ahead in enumerate(self.horizons):
            if ahead not in WITH_STANDARD_ERROR:
                continue
            counted = self.counts[:, number]
            each, files = gained[counted, number], self.files[counted]
            for prefix, of in (("", each), ("static_", each[:, : self.static_count])):
                name = f"{prefix}error_{ahead}_below_autoregression"
                figures[name] = float(of.mean())
                figures[f"{name}_standard_error"] = standard_error(of.mean(axis=1), files)
        return figures

    def crps(self, samples: Array) -> dict[str, float]:
        """`crps_<h>` of (samples, places, horizons, features): the mean over features and places.

        The continuous ranked probability score in its energy form, |X - y| - |X - X'| / 2, with
        the unbiased mean over pairs (Gneiting and Raftery, 2007). Of a single answer it is the
        absolute error; the smaller the better.
        """
        count = len(samples)
        ranks = np.sort(samples, axis=0)
        # Sum over pairs of |X - X'| by order statistics: no (samples, samples) array.
        weights = 2 * np.arange(1, count + 1) - count - 1
        apart = np.tensordot(weights, ranks, axes=1) / max(count * (count - 1), 1)
        scores = np.abs(samples - self.values).mean(axis=0) - apart
        return {
            f"crps_{ahead}": float(scores[self.counts[:, number], number].mean())
            for number, ahead in enumerate(self.horizons)
        }


def standard_error(values: Array, files: NDArray[np.int64]) -> float:
    """Of the mean of `values`, (n,), each file counting as one draw; 0 for a single file."""
    names = np.unique(files)
    if len(names) < 2:
        return 0.0
    residuals = values - values.mean()
    sums = np.array([residuals[files == name].sum() for name in names])
    spread = np.square(sums).sum() * len(names) / (len(names) - 1)
    return float(np.sqrt(spread) / len(values))


def at_horizons(told: NDArray[np.floating], horizons: Sequence[int]) -> NDArray[np.floating]:
    """The frames (…, horizons, features) of (…, frames, features) that are so far ahead."""
    return told[..., np.asarray(horizons) - 1, :]
