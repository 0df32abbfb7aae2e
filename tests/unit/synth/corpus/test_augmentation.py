"""Augmentation: crops that differ as asked, and by nothing that was not drawn."""

import numpy as np
import pytest
from numpy.typing import NDArray

from services.errors import InvalidInputError
from services.synth.corpus.augmentation import Augmentation

RATE = 44100
ALL = Augmentation(gain_decibels=6, polarity=True, speed=0.05)


def _noise(size: int, peak: float = 0.5) -> NDArray[np.float32]:
    noise = np.random.default_rng(1).uniform(-peak, peak, size)
    return noise.astype(np.float32)


def _tone(hertz: float, size: int) -> NDArray[np.float32]:
    return (np.sin(2 * np.pi * hertz * np.arange(size) / RATE) / 2).astype(np.float32)


def _pitch(crop: NDArray[np.float32]) -> float:
    spectrum = np.abs(np.fft.rfft(crop * np.hanning(crop.size), 16 * crop.size))
    return float(spectrum.argmax() * RATE / (16 * crop.size))


def test_crops_are_the_recordings_own_samples_where_nothing_is_asked_for() -> None:
    samples = np.linspace(0, 1, 1000, endpoint=False, dtype=np.float32)
    random = np.random.default_rng(3)
    firsts = set()
    for _ in range(200):
        crop = Augmentation().crop(samples, 100, random)
        first = round(float(crop[0]) * 1000)
        np.testing.assert_array_equal(crop, samples[first : first + 100])
        firsts.add(first)
    assert min(firsts) < 50
    assert max(firsts) > 850


def test_what_is_off_draws_nothing_beyond_the_place() -> None:
    random, plain = np.random.default_rng(3), np.random.default_rng(3)
    Augmentation().crop(_noise(1000), 100, random)
    plain.integers(901)
    assert random.bit_generator.state == plain.bit_generator.state


def test_the_first_and_the_last_sample_can_be_heard() -> None:
    samples = np.array([0.1, 0.2, 0.3], np.float32)
    random = np.random.default_rng(0)
    crops = {tuple(Augmentation().crop(samples, 2, random)) for _ in range(50)}
    assert crops == {tuple(samples[:2]), tuple(samples[1:])}


@pytest.mark.parametrize("augmentation", [Augmentation(), ALL])
def test_the_same_generator_state_gives_the_same_crop(augmentation: Augmentation) -> None:
    samples = _noise(30_000)
    first, second = (
        augmentation.crop(samples, 4096, np.random.default_rng((7, 42))) for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)
    other = augmentation.crop(samples, 4096, np.random.default_rng((7, 43)))
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("augmentation", [Augmentation(), ALL])
@pytest.mark.parametrize("size", [1, 2, 100, 4095, 4096, 4097])
def test_every_length_of_sound_gives_a_whole_crop(size: int, augmentation: Augmentation) -> None:
    for seed in range(20):
        crop = augmentation.crop(_noise(size), 4096, np.random.default_rng(seed))
        assert crop.shape == (4096,)
        assert crop.dtype == np.float32
        assert crop.any()
        # 5 % slower is 5 % longer, and a sample for rounding.
        assert not crop[round(size * 1.06) + 1 :].any()


def test_silence_stays_silence() -> None:
    crop = ALL.crop(np.zeros(5000, np.float32), 4096, np.random.default_rng(0))
    assert not crop.any()


def test_gain_stays_within_its_bounds_and_reaches_towards_both() -> None:
    samples = (_tone(440, 4096) / 4).astype(np.float32)
    random = np.random.default_rng(0)
    gains = [
        20 * np.log10(np.abs(Augmentation(gain_decibels=6).crop(samples, 4096, random)).max() * 8)
        for _ in range(200)
    ]
    assert -6.01 < min(gains) < -5
    assert 5 < max(gains) < 6.01


@pytest.mark.parametrize("augmentation", [Augmentation(gain_decibels=40), ALL])
def test_no_crop_is_louder_than_full_scale(augmentation: Augmentation) -> None:
    # A square wave at full scale overshoots when it is resampled.
    samples = np.sign(_noise(20_000)).astype(np.float32)
    for seed in range(50):
        crop = augmentation.crop(samples, 4096, np.random.default_rng(seed))
        assert np.abs(crop).max() <= np.float32(1.0000001)


def test_about_half_of_the_crops_are_inverted_and_nothing_else() -> None:
    samples = _noise(100)
    random = np.random.default_rng(0)
    inverted = 0
    for _ in range(200):
        crop = Augmentation(polarity=True).crop(samples, 100, random)
        sign = np.sign(crop[0] * samples[0])
        np.testing.assert_array_equal(crop, sign * samples)
        inverted += int(sign < 0)
    assert 60 < inverted < 140


def test_speed_moves_the_pitch_within_its_bounds_and_reaches_towards_both() -> None:
    samples = _tone(1000, 30_000)
    random = np.random.default_rng(0)
    pitches = [_pitch(Augmentation(speed=0.05).crop(samples, 8192, random)) for _ in range(60)]
    assert 949 < min(pitches) < 960
    assert 1040 < max(pitches) < 1051


def test_a_crop_at_another_speed_is_clean_up_to_its_ends() -> None:
    samples = _tone(10_000, 60_000)
    for seed in range(10):
        random = np.random.default_rng(seed)
        crop = Augmentation(speed=0.05).crop(samples, 8192, random)
        # A pure tone obeys x[n+1] + x[n-1] = 2 cos(w) x[n]; what rings or aliases does not.
        neighbours, middle = crop[2:] + crop[:-2], crop[1:-1]
        factor = float(neighbours @ middle / (middle @ middle))
        assert np.abs(neighbours - factor * middle).max() < 2e-3


@pytest.mark.parametrize(
    "values",
    [
        {"gain_decibels": -1.0},
        {"gain_decibels": float("nan")},
        {"gain_decibels": float("inf")},
        {"speed": -0.1},
        {"speed": 0.6},
        {"speed": float("nan")},
    ],
)
def test_impossible_values_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(InvalidInputError, match="augmentation"):
        Augmentation(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize("speed", [0.0, 0.2])
def test_a_crop_of_a_quiet_sound_by_its_peak_is_that_of_the_sound_at_full_scale(
    speed: float,
) -> None:
    augmentation = Augmentation(gain_decibels=6, polarity=True, speed=speed)
    loud = np.random.default_rng(0).uniform(-1, 1, 5000).astype(np.float32)
    quiet = loud / np.float32(8)

    for seed in range(5):
        expected = augmentation.crop(loud, 1000, np.random.default_rng(seed))
        crop = augmentation.crop(quiet, 1000, np.random.default_rng(seed), peak=0.125)
        np.testing.assert_allclose(crop, expected, atol=1e-6)
