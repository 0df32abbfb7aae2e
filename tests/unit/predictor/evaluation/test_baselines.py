"""Baselines on processes whose law is known."""

import numpy as np
import pytest

from services.audio.track import DescriptorTrack
from services.errors import InvalidInputError
from services.predictor.deltas import names_with_deltas, with_deltas
from services.predictor.evaluation.autoregression import LinearAutoregression
from services.predictor.evaluation.baselines import Persistence, TrainingMean
from services.predictor.evaluation.direct_forecast import DirectForecast
from services.predictor.evaluation.material import Material
from services.predictor.port import FloatArray, Predictor

NAMES = ("a", "b")
FIRST = np.array([[0.6, 0.3], [-0.2, 0.5]])
SECOND = np.array([[0.2, 0.0], [0.1, 0.25]])
NOISE = np.array([[1.0, 0.0], [0.6, 0.5]])


def track(values: np.ndarray, source: str, names: tuple[str, ...] = NAMES) -> DescriptorTrack:
    return DescriptorTrack(names, values.astype(np.float32), 22050, 512, source)


def process(frames: int, seed: int) -> np.ndarray:
    """A vector autoregression of order 2 about the means 10 and -3."""
    random = np.random.default_rng(seed)
    values = np.zeros((frames + 100, 2))
    for i in range(2, len(values)):
        values[i] = FIRST @ values[i - 1] + SECOND @ values[i - 2]
        values[i] += NOISE @ random.standard_normal(2)
    return values[100:] + np.array([10.0, -3.0])


def white(frames: int, seed: int) -> np.ndarray:
    return 5 + 2 * np.random.default_rng(seed).standard_normal((frames, 2))


def material(make: object = process, frames: int = 3000) -> Material:
    tracks = [track(make(frames, i), f"{i}.wav") for i in range(5)]  # type: ignore[operator]
    return Material.of(tracks[:4], tracks[4:])


def mfccs(frames: int, seed: int) -> np.ndarray:
    return with_deltas(process(frames, seed))


def error_ahead(predictor: Predictor, known: Material, ahead: int) -> float:
    """The mean squared error of z-scores at that many frames ahead."""
    places = known.places(600, window_frames=40, frames_ahead=ahead)
    told = predictor.predict_many(known.windows(places, 40), ahead, seeds=range(len(places)))
    came = known.futures(places, ahead)
    return float(np.square(known.scored(told) - known.scored(came))[:, -1].mean())


def test_of_white_noise_persistence_is_off_by_two_variances_and_the_mean_by_one() -> None:
    known = material(white)
    for ahead in (1, 10):
        assert error_ahead(Persistence(known), known, ahead) == pytest.approx(2.0, rel=0.15)
        assert error_ahead(TrainingMean(known), known, ahead) == pytest.approx(1.0, rel=0.15)
        # There is nothing to know, and fitting finds nothing.
        assert error_ahead(LinearAutoregression(known), known, ahead) < 1.15


def test_the_autoregression_finds_the_coefficients_and_the_innovations_of_a_process() -> None:
    known = material()
    found = LinearAutoregression(known, orders=(2,)).coefficients
    scales = known.statistics.scales
    raw = found.weights / scales[:, None] * scales
    np.testing.assert_allclose(raw[0].T, FIRST, atol=0.05)
    np.testing.assert_allclose(raw[1].T, SECOND, atol=0.05)
    covariance = found.covariance * np.outer(scales, scales)
    assert covariance == pytest.approx(NOISE @ NOISE.T, rel=0.1)
    assert found.shrunk == 1


def test_of_several_orders_one_that_suffices_is_chosen() -> None:
    assert LinearAutoregression(material()).coefficients.order >= 2


def test_the_autoregression_beats_persistence_and_mean_where_there_is_something_to_know() -> None:
    known = material()
    own = error_ahead(LinearAutoregression(known), known, 1)
    assert own < 0.95 * error_ahead(Persistence(known), known, 1)
    assert own < 0.8 * error_ahead(TrainingMean(known), known, 1)


def test_the_density_of_the_autoregression_is_that_of_its_innovations() -> None:
    known = material()
    predictor = LinearAutoregression(known, orders=(2,))
    frames = process(2000, seed=9)[None].astype(np.float32)
    nats = predictor.log_likelihood(frames, 50)
    assert nats.shape == (1, 1950)
    # The entropy of its Gaussian noise.
    entropy = 0.5 * np.linalg.slogdet(2 * np.pi * np.e * NOISE @ NOISE.T)[1]
    assert nats.mean() == pytest.approx(-entropy, abs=0.05)


def test_the_density_integrates_to_one() -> None:
    known = material()
    predictor = LinearAutoregression(known, orders=(1,))
    before = process(20, seed=3).astype(np.float32)
    width = 0.25
    grid = np.arange(-8, 8, width)
    points = np.stack(np.meshgrid(grid + 10, grid - 3), axis=-1).reshape(-1, 1, 2)
    frames = np.concatenate([np.tile(before, (len(points), 1, 1)), points], axis=1)
    mass = np.exp(predictor.log_likelihood(frames.astype(np.float32), 20)).sum() * width**2
    assert mass == pytest.approx(1.0, abs=0.01)


def test_an_autoregression_of_growing_tracks_does_not_explode() -> None:
    growing = np.exp(np.arange(400) / 60)[:, None] * [1.0, -2.0]
    tracks = [track(growing * (1 + i / 10), f"{i}.wav") for i in range(3)]
    known = Material.of(tracks[:2], tracks[2:])
    predictor = LinearAutoregression(known)
    assert predictor.coefficients.shrunk < 1
    told = predictor.predict(tracks[2].values, 2000)
    assert np.abs(known.scored(told)).max() < 50


def test_samples_follow_their_seed_and_have_the_variance_of_the_process() -> None:
    known = material()
    predictor = LinearAutoregression(known)
    window = known.held_out[0].values
    told = predictor.predict(window, 3000, seed=4, temperature=1.0)
    assert (told[:50] == predictor.predict(window, 50, seed=4, temperature=1.0)).all()
    assert not np.allclose(told[:50], predictor.predict(window, 50, seed=5, temperature=1.0))
    assert told.var(axis=0) == pytest.approx(known.statistics.variances, rel=0.2)
    flat = predictor.predict(window, 500)
    assert flat[-100:].std(axis=0).max() < 1e-3


@pytest.mark.parametrize("which", ["persistence", "autoregression", "direct"])
def test_deltas_follow_from_the_statics_that_are_told(which: str) -> None:
    names = names_with_deltas(("mfcc0", "mfcc1"))
    tracks = [track(mfccs(1500, i), f"{i}.wav", names) for i in range(3)]
    known = Material.of(tracks[:2], tracks[2:])
    assert (known.static_count, known.has_deltas) == (2, True)
    predictor: Predictor = {
        "persistence": lambda: Persistence(known),
        "autoregression": lambda: LinearAutoregression(known),
        "direct": lambda: DirectForecast(known, 20),
    }[which]()
    window = tracks[2].values[:200]
    told = predictor.predict(window, 60)
    # A longer answer begins as a shorter one.
    assert predictor.predict(window, 20) == pytest.approx(told[:20], abs=1e-4)
    statics = np.concatenate([window[-9:, :2], told[:, :2]])
    assert with_deltas(statics)[9:-4] == pytest.approx(told[:-4], abs=1e-3)


def test_what_is_heard_ends_with_the_deltas_of_a_sound_that_ends_there() -> None:
    names = names_with_deltas(("mfcc0", "mfcc1"))
    whole = process(300, 0)
    known = Material.of(
        [track(with_deltas(whole), "a.wav", names)], [track(with_deltas(whole), "b.wav", names)]
    )
    places = known.places(5, window_frames=30, frames_ahead=20)
    for place, window in zip(places, known.windows(places, 30), strict=True):
        cut = with_deltas(whole[: place.frame])[-30:]
        assert window == pytest.approx(cut, abs=1e-3)
        told_of_the_future = with_deltas(whole)[place.frame - 30 : place.frame]
        assert not np.allclose(window[-1], told_of_the_future[-1], atol=1e-2)


def test_a_direct_forecast_is_no_worse_than_the_autoregression_far_ahead() -> None:
    known = material()
    direct, iterated = DirectForecast(known, 40), LinearAutoregression(known)
    for ahead in (1, 5, 10):
        own, other = (error_ahead(each, known, ahead) for each in (direct, iterated))
        assert own == pytest.approx(other, rel=0.1)


@pytest.mark.parametrize("frames", [30, 200])
def test_baselines_are_fitted_to_what_little_there_is(frames: int) -> None:
    known = material(frames=frames)
    fitted: list[Predictor] = [
        Persistence(known),
        TrainingMean(known),
        LinearAutoregression(known),
        DirectForecast(known, 10),
    ]
    for predictor in fitted:
        told: FloatArray = predictor.predict(known.held_out[0].values, 300)
        assert told.shape == (300, 2)
        assert np.isfinite(told).all()


def test_only_the_autoregression_has_a_temperature() -> None:
    known = material(frames=200)
    with pytest.raises(InvalidInputError, match="deterministic: only 0"):
        Persistence(known).predict(known.held_out[0].values, 2, temperature=1.0)
