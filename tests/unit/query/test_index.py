"""Specifications of collections."""

import numpy as np
import pytest

from services.audio.statistics import FeatureStatistics
from services.errors import InvalidInputError, SettingsMismatchError
from services.query.index import CollectionSpec, Metric, Scaling

NAMES = ("mfcc0", "mfcc1")


def statistics(
    *names: str, count: int = 4, variances: tuple[float, ...] = (1, 4)
) -> FeatureStatistics:
    return FeatureStatistics(names, count, np.array([1.0, 2.0]), np.array(variances, np.float64))


def standardized(moments: FeatureStatistics | None) -> CollectionSpec:
    return CollectionSpec(NAMES, 44100, 1024, Metric.EUCLIDEAN, Scaling.STANDARDIZED, moments)


def test_statistics_are_put_in_order_by_name() -> None:
    spec = standardized(statistics("mfcc1", "mfcc0"))

    assert spec.statistics is not None
    assert spec.statistics.feature_names == NAMES
    assert spec.statistics.means.tolist() == [2, 1]
    assert spec.statistics.variances.tolist() == [4, 1]
    assert spec != standardized(statistics("mfcc0", "mfcc1"))
    assert spec == standardized(statistics("mfcc1", "mfcc0"))


def test_statistics_of_other_features_are_refused_by_name() -> None:
    with pytest.raises(SettingsMismatchError, match="mfcc7"):
        standardized(statistics("mfcc0", "mfcc7"))


@pytest.mark.parametrize(
    "moments",
    [
        None,
        statistics(*NAMES, count=0),
        statistics(*NAMES, variances=(1, -1)),
        statistics(*NAMES, variances=(1, float("nan"))),
    ],
)
def test_standardizing_needs_statistics_that_can_be(moments: FeatureStatistics | None) -> None:
    with pytest.raises(InvalidInputError, match="statistics"):
        standardized(moments)


@pytest.mark.parametrize(
    ("names", "rate", "hop"),
    [((), 44100, 1024), (("mfcc0", "mfcc0"), 44100, 1024), (NAMES, 0, 1024), (NAMES, 44100, -1)],
)
def test_specifications_that_cannot_be_are_refused(
    names: tuple[str, ...], rate: int, hop: int
) -> None:
    with pytest.raises(InvalidInputError):
        CollectionSpec(names, rate, hop)
