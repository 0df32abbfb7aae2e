import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.audio.resampling import resample, resample_blocks, to_mono
from services.errors import InvalidInputError


@pytest.mark.parametrize(
    ("from_rate", "to_rate"),
    [(22_050, 44_100), (48_000, 44_100), (44_100, 8_000), (8_000, 44_100), (44_101, 44_100)],
)
@pytest.mark.parametrize("frames", [1, 2, 7, 59, 1_000])
@pytest.mark.parametrize("channels", [1, 2, 64])
def test_the_length_follows_the_rates_and_is_rounded_up(
    from_rate: int, to_rate: int, frames: int, channels: int
) -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, (frames, channels))

    resampled = resample(samples, from_rate, to_rate)

    assert resampled.shape == (math.ceil(frames * to_rate / from_rate), channels)
    assert resampled.dtype == np.float32
    assert np.isfinite(resampled).all()


@pytest.mark.parametrize(("from_rate", "to_rate"), [(48_000, 44_100), (22_050, 44_100)])
def test_a_tone_stays_the_same_tone_at_the_same_time(from_rate: int, to_rate: int) -> None:
    def tone(rate: int) -> np.ndarray:
        return np.sin(2 * np.pi * 1_000 * np.arange(rate) / rate)[:, None]

    resampled = resample(tone(from_rate), from_rate, to_rate)

    middle = slice(to_rate // 4, -to_rate // 4)
    assert np.abs(resampled - tone(to_rate))[middle].max() < 1e-4


def test_channels_do_not_mix() -> None:
    samples = np.zeros((1_000, 3))
    samples[:, 1] = 0.5

    resampled = resample(samples, 48_000, 44_100)

    assert not resampled[:, [0, 2]].any()
    assert resampled[400:500, 1] == pytest.approx(0.5, abs=1e-3)


def test_equal_rates_change_nothing() -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, (10, 2)).astype(np.float32)

    assert np.array_equal(resample(samples, 44_100, 44_100), samples)


def test_nothing_resampled_is_nothing() -> None:
    assert resample(np.zeros((0, 2)), 48_000, 44_100).shape == (0, 2)


@pytest.mark.parametrize("rates", [(0, 44_100), (44_100, 0), (-1, 44_100)])
def test_rates_that_cannot_be_are_refused(rates: tuple[int, int]) -> None:
    with pytest.raises(InvalidInputError):
        resample(np.zeros((10, 1)), *rates)


def test_mono_is_the_mean_of_the_channels() -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, (100, 5)).astype(np.float32)

    mono = to_mono(samples)

    assert mono.dtype == np.float32
    assert mono == pytest.approx(samples.astype(np.float64).mean(axis=1), abs=1e-6)
    assert np.array_equal(to_mono(samples[:, :1]), samples[:, 0])


RATES = [8_000, 11_025, 22_050, 32_000, 44_100, 44_101, 48_000, 88_200, 96_000, 192_000]


def cut(samples: np.ndarray, block: int) -> list[np.ndarray]:
    return [samples[start : start + block] for start in range(0, len(samples), block)]


@settings(max_examples=150, deadline=None)
@given(
    from_rate=st.sampled_from(RATES),
    to_rate=st.sampled_from([8_000, 22_050, 44_100, 48_000]),
    frames=st.integers(1, 20_000),
    block=st.integers(100, 20_000),
)
def test_blocks_are_resampled_bit_for_bit_like_the_whole(
    from_rate: int, to_rate: int, frames: int, block: int
) -> None:
    samples = np.random.default_rng(frames).uniform(-1, 1, frames).astype(np.float32)

    parts = list(resample_blocks(iter(cut(samples, block)), from_rate, to_rate))

    whole = resample(samples[:, None], from_rate, to_rate)[:, 0]
    assert np.concatenate(parts).tobytes() == whole.tobytes()


@pytest.mark.parametrize(
    "rates", [(1_000_000, 44_100), (1_000, 192_000), (48_000, 44_100), (44_100, 44_100)]
)
def test_many_blocks_of_any_rate_are_resampled_like_the_whole(rates: tuple[int, int]) -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, 300_001).astype(np.float32)

    parts = list(resample_blocks(iter(cut(samples, 65_536)), *rates))

    assert max(map(len, parts)) < 200_000  # of 57 600 192
    assert np.array_equal(np.concatenate(parts), resample(samples[:, None], *rates)[:, 0])


@pytest.mark.parametrize("rates", [(0, 44_100), (44_100, -1)])
def test_blocks_at_rates_that_cannot_be_are_refused(rates: tuple[int, int]) -> None:
    with pytest.raises(InvalidInputError):
        next(resample_blocks([np.zeros(10, np.float32)], *rates))
