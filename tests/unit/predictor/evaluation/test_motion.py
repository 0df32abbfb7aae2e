"""What is alive scores as alive, and a line, noise and a loop do not."""

import numpy as np
import pytest

from services.errors import InvalidInputError
from services.predictor.evaluation.motion import Motion, band_edges, bands

RATE = 43.0
FRAMES = 500


def wandering(places: int, frames: int, seed: int) -> np.ndarray:
    """Slow and fast motion together, of variance about 1: (places, frames, 3)."""
    random = np.random.default_rng(seed)
    values = random.standard_normal((places, frames + 200, 3))
    for i in range(1, frames + 200):
        values[:, i] = 0.95 * values[:, i - 1] + 0.31 * values[:, i]
    return values[:, 200:]


REAL = wandering(200, FRAMES, 0)


def beside(told: np.ndarray) -> dict[str, float]:
    return Motion.of(told).beside(Motion.of(REAL), RATE)


def test_another_draw_of_the_same_process_is_as_alive_as_the_first() -> None:
    told = beside(wandering(200, FRAMES, 1))
    assert told["variance_ratio"] == pytest.approx(1.0, abs=0.1)
    assert told["spectrum_distance"] < 0.15
    assert told["drift_variance"] == pytest.approx(1.0, abs=0.1)
    ratios = [value for name, value in told.items() if name.startswith("spectrum_ratio")]
    assert len(ratios) == len(bands(FRAMES, RATE)) == 6
    assert ratios == pytest.approx([1.0] * 6, abs=0.2)


def test_a_line_is_dead() -> None:
    told = beside(np.repeat(REAL[:, :1], FRAMES, axis=1))
    assert told["variance_ratio"] < 1e-5
    assert told["spectrum_distance"] > 10
    assert all(np.isfinite(value) for value in told.values())


def test_white_noise_of_the_same_variance_is_not_alive() -> None:
    told = beside(np.random.default_rng(2).standard_normal(REAL.shape))
    assert told["spectrum_distance"] > 1
    assert told["spectrum_ratio_10.8_to_21.5_hz"] > 3
    assert told["spectrum_ratio_0.336_to_0.672_hz"] < 0.3


def test_a_loop_of_real_music_is_not_alive() -> None:
    told = beside(np.tile(REAL[:, :50], (1, 10, 1)))
    assert told["spectrum_distance"] > 0.8
    assert told["spectrum_ratio_0.336_to_0.672_hz"] < 0.1


def test_what_dies_down_drifts() -> None:
    told = beside(REAL * np.linspace(1.5, 0.1, FRAMES)[:, None])
    assert told["drift_variance"] < 0.2
    moved = beside(REAL + np.linspace(0, 2, FRAMES)[:, None])
    # Three quarters of the way, from the middle of the first quarter to that of the last.
    assert moved["drift_mean"] == pytest.approx(1.5, abs=0.15)


def test_half_the_amplitude_is_a_quarter_of_variance_and_power() -> None:
    told = beside(0.5 * REAL)
    assert told["variance_ratio"] == pytest.approx(0.25)
    assert told["spectrum_distance"] == pytest.approx(np.log(4))
    lame = beside(REAL * [1.0, 1.0, 0.1])
    assert lame["variance_ratio_least"] == pytest.approx(0.01)
    assert lame["variance_ratio_greatest"] == pytest.approx(1.0)


@pytest.mark.parametrize("hertz", [0.5, 1.0, 2.0, 4.0, 8.0, 16.0])
def test_a_sine_is_in_the_octave_of_its_frequency(hertz: float) -> None:
    sine = np.sin(2 * np.pi * hertz / RATE * np.arange(FRAMES))[None, :, None]
    powers = Motion.of(sine).powers[:, 0]
    low, high = band_edges(FRAMES, RATE)[int(powers.argmax())]
    assert low <= hertz <= high
    assert powers.max() > 0.9 * powers.sum()


def test_a_feature_that_stands_still_in_music_may_stand_still_in_a_prediction() -> None:
    still = REAL * [1.0, 1.0, 0.0]
    told = Motion.of(still).beside(Motion.of(still), RATE)
    assert told["variance_ratio"] == 1
    assert told["spectrum_distance"] == 0


def test_too_few_frames_tell_nothing() -> None:
    with pytest.raises(InvalidInputError, match="10 frames are too few"):
        Motion.of(REAL[:, :10])
