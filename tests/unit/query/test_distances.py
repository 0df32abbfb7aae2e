"""Distances in float64, and how far a float32 engine may be from them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from services.audio.statistics import FeatureStatistics
from services.query.distances import (
    Candidates,
    distances,
    for_engine,
    scaled,
    score_error,
)
from services.query.index import CollectionSpec, Metric, Scaling


def spec_of(features: int, metric: Metric = Metric.EUCLIDEAN) -> CollectionSpec:
    return CollectionSpec(tuple(f"mfcc{number}" for number in range(features)), 44100, 1024, metric)


def in_float32(
    metric: Metric, query: NDArray[np.float32], frame: NDArray[np.float32]
) -> np.float32:
    """The score of an engine that adds up feature by feature, the least exact way."""
    total = np.float32(0)
    for a, b in zip(query, frame, strict=True):
        if metric is Metric.EUCLIDEAN:
            total += (a - b) * (a - b)
        elif metric is Metric.MANHATTAN:
            total += np.abs(a - b)
        else:
            total += a * b
    if metric is Metric.EUCLIDEAN:
        return np.sqrt(total)
    return np.float32(1) - total if metric is Metric.COSINE else total


@pytest.mark.parametrize("metric", Metric)
@given(seed=st.integers(0, 2**32 - 1), features=st.integers(1, 60), exponent=st.integers(-4, 6))
def test_a_float32_score_is_within_its_stated_error(
    metric: Metric, seed: int, features: int, exponent: int
) -> None:
    generator = np.random.default_rng(seed)
    centre = generator.normal(size=features) * 10.0**exponent
    both = (centre + generator.normal(size=(2, features))).astype(np.float32)
    spec = spec_of(features, metric)
    query, frame = for_engine(spec, both)

    score = np.array([in_float32(metric, query, frame)], np.float64)
    exact = distances(metric, *scaled(spec, both))

    assert abs(score[0] - exact) <= score_error(metric, scaled(spec, both[:1]), score)[0]


def test_features_that_never_change_are_not_divided_by_zero() -> None:
    statistics = FeatureStatistics(
        ("mfcc0", "mfcc1"), 4, np.array([5.0, 1.0]), np.array([0.0, 4.0])
    )
    spec = CollectionSpec(
        ("mfcc0", "mfcc1"), 44100, 1024, Metric.EUCLIDEAN, Scaling.STANDARDIZED, statistics
    )

    np.testing.assert_array_equal(
        scaled(spec, np.array([[5, 5], [6, 1]], np.float32)), [[0, 2], [1, 0]]
    )


def test_what_float32_cannot_hold_is_clipped_for_the_engine() -> None:
    statistics = FeatureStatistics(("mfcc0",), 4, np.zeros(1), np.array([1e-60]))
    spec = CollectionSpec(
        ("mfcc0",), 44100, 1024, Metric.EUCLIDEAN, Scaling.STANDARDIZED, statistics
    )

    values = for_engine(spec, np.array([[-1e20], [1e20]], np.float32))

    np.testing.assert_array_equal(values[:, 0], np.float32([-1, 1]) * np.finfo(np.float32).max)


def test_short_frames_reach_the_engine_at_full_length() -> None:
    frames = for_engine(spec_of(2, Metric.COSINE), np.array([[3e-20, 4e-20], [0, 0]], np.float32))

    np.testing.assert_allclose(frames, [[0.6, 0.8], [0, 0]], rtol=1e-6)


def test_candidates_are_ordered_by_distance_then_source_then_start() -> None:
    candidates = Candidates(
        np.array([[1.0, 0.5, 1.0, 1.0]]),
        np.array([[2, 9, 1, 1]]),
        np.array([[0, 7, 2048, 1024]], np.uint64),
    )

    nearest = candidates.nearest(3)

    assert nearest.distances.tolist() == [[0.5, 1.0, 1.0]]
    assert nearest.ranks.tolist() == [[9, 1, 1]]
    assert nearest.start_samples.tolist() == [[7, 1024, 2048]]
