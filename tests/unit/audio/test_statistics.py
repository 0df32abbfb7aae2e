from functools import reduce

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.audio.statistics import FeatureStatistics
from services.audio.track import DescriptorTrack
from services.errors import SettingsMismatchError


def statistics(values: np.ndarray, names: tuple[str, ...] = ("a", "b")) -> FeatureStatistics:
    return FeatureStatistics.of(
        DescriptorTrack(names, values.astype(np.float32), 44_100, 1024, "wren.wav")
    )


@given(lengths=st.lists(st.integers(0, 20), min_size=1, max_size=6), seed=st.integers(0, 2**32 - 1))
def test_merged_moments_are_those_of_all_frames_together(lengths: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = [rng.normal(rng.uniform(-300, 300), 5, (length, 2)) for length in lengths]

    merged = reduce(FeatureStatistics.merged, map(statistics, parts))

    together = statistics(np.concatenate(parts))
    assert merged.frame_count == together.frame_count == sum(lengths)
    assert merged.means == pytest.approx(together.means, abs=1e-9)
    assert merged.variances == pytest.approx(together.variances, rel=1e-9, abs=1e-9)


def test_moments_of_a_track() -> None:
    moments = statistics(np.array([[1.0, 5.0], [3.0, 5.0]]))

    assert moments.means.tolist() == [2, 5]
    assert moments.variances.tolist() == [1, 0]


@given(length=st.integers(0, 300), cuts=st.sets(st.integers(0, 300)), features=st.integers(2, 39))
def test_moments_of_blocks_are_bit_for_bit_those_of_all_frames(
    length: int, cuts: set[int], features: int
) -> None:
    values = (np.random.default_rng(length).normal(-50, 300, (length, features))).astype(np.float32)

    found = FeatureStatistics.of_blocks(
        tuple("f" * features), lambda: np.split(values, sorted(cut for cut in cuts if cut < length))
    )

    assert found.frame_count == length
    expected = values.astype(np.float64) if length else np.zeros((1, features))
    assert found.means.tobytes() == expected.mean(axis=0).tobytes()
    assert found.variances.tobytes() == expected.var(axis=0).tobytes()


def test_features_that_never_change_have_scale_one() -> None:
    assert statistics(np.array([[1.0, 5.0], [5.0, 5.0]])).scales.tolist() == [2, 1]
    assert statistics(np.zeros((0, 2))).scales.tolist() == [1, 1]


def test_a_large_offset_does_not_swallow_a_small_variance() -> None:
    values = np.array([[4096.0, 0], [4096.001, 0]])

    expected = values.astype(np.float32).astype(np.float64).var(axis=0)
    assert statistics(values).variances == pytest.approx(expected, rel=1e-9)
    assert expected[0] > 0


def test_statistics_of_other_features_are_refused() -> None:
    with pytest.raises(SettingsMismatchError):
        statistics(np.zeros((1, 2))).merged(statistics(np.zeros((1, 2)), ("b", "a")))
