"""A linear vector autoregression with Gaussian innovations (Lütkepohl, 2005, chapters 2 and 3).

The next frame is a linear function of the last ones, fitted by least squares with ridge. It knows
the static coefficients alone where the features are MFCCs, and their deltas are computed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve, solve_triangular

from services.predictor.evaluation.baselines import Array, StaticBaseline
from services.predictor.evaluation.material import Material
from services.predictor.networks.stability import stabilised
from services.predictor.port import FloatArray

ORDERS = (1, 2, 4, 8, 16, 32)
RIDGES = (1e-6, 1e-4, 1e-2)
"""Multiples of the number of frames: what z-scores of variance 1 add to their own products."""
KEPT_BACK_SHARE = 0.15
BLOCK_FRAMES = 4096
CHOICE_HORIZONS = (1, 10, 100)
CHOICE_STARTS = 512


@dataclass(frozen=True, eq=False)
class Coefficients:
    """One fitted autoregression of z-scores."""

    weights: Array
    """(order, features before, features after): the first belongs to the last frame."""
    constant: Array
    """(features,)."""
    covariance: Array
    """Of the innovations, (features, features)."""
    ridge: float
    """As a multiple of the number of frames."""
    shrunk: float = 1.0
    """What the roots were multiplied by for the sake of stability; 1 if they were stable."""

    @property
    def order(self) -> int:
        """Frames that it looks at."""
        return len(self.weights)

    def continued(self, frames: Array, steps: int, noise: Array | None = None) -> Array:
        """(B, at least order, E) z-scores continued by (B, steps, E), with `noise` if given."""
        order, batch = self.order, len(frames)
        whole = np.concatenate(
            [frames[:, -order:], np.empty((batch, steps, frames.shape[2]))], axis=1
        )
        # One product a step: the last frame comes last.
        stacked = self.weights[::-1].reshape(-1, frames.shape[2])
        for step in range(steps):
            heard = whole[:, step : step + order].reshape(batch, -1)
            whole[:, step + order] = heard @ stacked + self.constant
            if noise is not None:
                whole[:, step + order] += noise[:, step]
        return whole[:, order:]

    def told(self, frames: Array) -> Array:
        """What is expected of each frame of z-scores (B, F, E) but the first `order` ones."""
        count = frames.shape[1] - self.order
        mean = np.broadcast_to(self.constant, (len(frames), count, frames.shape[2])).copy()
        for lag, weights in enumerate(self.weights, start=1):
            mean += frames[:, self.order - lag : self.order - lag + count] @ weights
        return mean


class LinearAutoregression(StaticBaseline):
    """The best of several orders and ridges, chosen on a kept-back part of the training tracks.

    Chosen is by the error of its own continuation, as a share of the variance, averaged over 1, 10
    and 100 frames ahead: what it is compared by. An autoregression that explodes would be a straw
    man, so the roots of an unstable one are shrunk to a radius of 0.999 (lag k times a power k of
    one factor). `temperature` t draws innovations of t times the fitted covariance.
    """

    def __init__(self, material: Material, orders: Sequence[int] = ORDERS) -> None:
        """Fits; one pass over the training tracks accumulates the products of lagged frames.

        `orders` are those to choose among, rising; none longer than a quarter of the longest track.
        """
        super().__init__(material)
        self.coefficients = _chosen(
            [
                (material.scored(track.values)[:, : self._static_count], material.regular(track))
                for track in material.training
            ],
            orders,
        )
        self._factor = np.linalg.cholesky(self.coefficients.covariance)

    @property
    def stochastic(self) -> bool:
        """It draws its innovations."""
        return True

    @property
    def size_bytes(self) -> int:
        """Memory of its coefficients."""
        fitted = self.coefficients
        return fitted.weights.nbytes + fitted.constant.nbytes + fitted.covariance.nbytes

    def log_likelihood(self, frames: FloatArray, window_frames: int) -> Array:
        """Log density, in nats, of each frame after the first `window_frames`: (B, F - window).

        `frames` are raw (B, F, features); the density is that of raw static values.
        """
        statics = self._scored(frames)
        order = self.coefficients.order
        errors = statics[:, window_frames:] - self.coefficients.told(
            statics[:, window_frames - order :]
        )
        white = solve_triangular(self._factor, errors.reshape(-1, self._static_count).T, lower=True)
        squares = np.square(white).sum(axis=0).reshape(errors.shape[:2])
        volume = np.log(np.diag(self._factor) * self._scales).sum()
        density: Array = -squares / 2 - volume - self._static_count / 2 * np.log(2 * np.pi)
        return density

    @property
    def _heard_frames(self) -> int:
        return self.coefficients.order

    def _told(self, statics: Array, steps: int, seeds: Sequence[int], temperature: float) -> Array:
        if temperature == 0:
            return self.coefficients.continued(statics, steps)
        drawn = np.stack(
            [
                np.random.default_rng(seed).standard_normal((steps, self._static_count))
                for seed in seeds
            ]
        )
        noise = np.sqrt(temperature) * drawn @ self._factor.T
        return self.coefficients.continued(statics, steps, noise)


_Parts = list[tuple[Array, NDArray[np.bool_]]]


def _chosen(parts: _Parts, orders: Sequence[int]) -> Coefficients:
    """The coefficients of all parts, of the order and the ridge that did best on some of them."""
    longest = max(len(frames) for frames, _ in parts)
    orders = [order for order in orders if order <= longest // 4] or [1]
    products = [_Products.of(frames, inside, max(orders)) for frames, inside in parts]
    whole = sum(products[1:], products[0])
    kept_back = _kept_back(parts)
    if not kept_back:
        return whole.coefficients(orders[0], RIDGES[1])
    fitted = sum((-products[number] for number in kept_back), whole)
    futures = _Futures.of([parts[number][0] for number in kept_back], max(orders))
    tried = {
        (order, ridge): futures.error(fitted.coefficients(order, ridge))
        for order in orders
        for ridge in RIDGES
    }
    return whole.coefficients(*min(tried, key=lambda each: tried[each]))


def _kept_back(parts: _Parts) -> list[int]:
    """Every so many-th part, in the order of their lengths; none if there is a single part."""
    apart = max(min(round(1 / KEPT_BACK_SHARE), len(parts)), 2)
    by_length = sorted(range(len(parts)), key=lambda number: len(parts[number][0]))
    return by_length[apart // 2 :: apart] if len(parts) > 1 else []


@dataclass(frozen=True, eq=False)
class _Futures:
    """Windows of kept-back parts, and the frames at CHOICE_HORIZONS after each."""

    windows: Array
    told: Array

    @classmethod
    def of(cls, parts: Sequence[Array], order: int) -> "_Futures":
        """About CHOICE_STARTS of them, evenly spread; none if all parts are too short."""
        furthest, features = max(CHOICE_HORIZONS), parts[0].shape[1]
        room = sum(max(len(frames) - order - furthest, 0) for frames in parts)
        apart = max(room // CHOICE_STARTS, 1)
        windows, told = [np.empty((0, order, features))], [np.empty((0, 0, features))]
        for frames in parts:
            starts = np.arange(order, len(frames) - furthest, apart)[:, np.newaxis]
            if len(starts):
                windows.append(frames[starts + np.arange(-order, 0)])
                told.append(frames[starts + np.array(CHOICE_HORIZONS) - 1])
        return cls(np.concatenate(windows), np.concatenate(told[1:] or told))

    def error(self, fitted: Coefficients) -> float:
        """Mean squared error of its continuations; of one frame where there are no windows."""
        if not len(self.windows):
            return float(np.trace(fitted.covariance))
        continued = fitted.continued(self.windows, max(CHOICE_HORIZONS))
        errors = continued[:, np.array(CHOICE_HORIZONS) - 1] - self.told
        return float(np.square(errors).mean())


@dataclass(frozen=True, eq=False)
class _Products:
    """Summed products of (1, frame, frame before, …, frame `lags` before): all that a fit needs."""

    sums: Array
    frames: int
    features: int

    @classmethod
    def of(cls, scored: Array, inside: NDArray[np.bool_], lags: int) -> "_Products":
        """Of one track, without the frames that have an outlier among themselves and those before.

        In blocks, so that memory does not grow with the track.
        """
        features = scored.shape[1]
        sums = np.zeros((1 + (lags + 1) * features,) * 2)
        count = 0
        for first in range(lags, len(scored), BLOCK_FRAMES):
            rows = np.arange(first, min(first + BLOCK_FRAMES, len(scored)))
            seen = rows[:, np.newaxis] - np.arange(lags + 1)
            seen = seen[inside[seen].all(axis=1)]
            design = np.concatenate(
                [np.ones((len(seen), 1)), scored[seen].reshape(len(seen), (lags + 1) * features)],
                axis=1,
            )
            sums += design.T @ design
            count += len(seen)
        return cls(sums, count, features)

    def __add__(self, other: "_Products") -> "_Products":
        return _Products(self.sums + other.sums, self.frames + other.frames, self.features)

    def __neg__(self) -> "_Products":
        return _Products(-self.sums, -self.frames, self.features)

    def coefficients(self, order: int, ridge: float) -> Coefficients:
        """The fit of that order, stable."""
        features = self.features
        target = slice(1, 1 + features)
        heard = np.r_[0, 1 + features : 1 + (order + 1) * features]
        # The constant is no coefficient to be kept small.
        penalty = np.r_[0.0, np.full(order * features, ridge * max(self.frames, 1))]
        gram = self.sums[np.ix_(heard, heard)]
        solved = solve(
            gram + np.diag(penalty) + 1e-9 * np.eye(len(heard)),
            self.sums[heard, target],
            assume_a="pos",
        )
        weights = solved[1:].reshape(order, features, features)
        stable, shrunk = stabilised(weights)
        fitted = np.concatenate([solved[:1], stable.reshape(-1, features)])
        residual = (
            self.sums[target, target]
            - fitted.T @ self.sums[heard, target]
            - self.sums[target, heard] @ fitted
            + fitted.T @ gram @ fitted
        ) / max(self.frames, 1)
        covariance = (residual + residual.T) / 2 + 1e-9 * np.eye(features)
        return Coefficients(stable, solved[0], covariance, ridge, shrunk)
