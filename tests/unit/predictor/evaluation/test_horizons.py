import numpy as np
import pytest

from services.predictor.evaluation.horizons import Answers, at_horizons, standard_error


def answers(places: int, horizons: tuple[int, ...] = (1, 10), features: int = 3) -> Answers:
    random = np.random.default_rng(0)
    return Answers(
        horizons=horizons,
        values=random.standard_normal((places, len(horizons), features)),
        counts=np.ones((places, len(horizons)), dtype=bool),
        files=np.arange(places) % 4,
        static_count=1,
    )


def test_a_horizon_is_exactly_so_many_frames_ahead() -> None:
    told = np.arange(20.0).reshape(1, 20, 1)
    assert at_horizons(told, (1, 10, 20)).ravel().tolist() == [0.0, 9.0, 19.0]


def test_errors_are_means_of_squares_over_all_features_and_over_the_statics() -> None:
    asked = answers(40)
    figures = asked.errors(asked.values + np.array([2.0, 1.0, 0.0]))
    assert figures["error_1"] == pytest.approx(5 / 3)
    assert figures["static_error_10"] == pytest.approx(4.0)
    assert figures["error_10_standard_error"] == pytest.approx(0.0)
    assert "error_1_standard_error" not in figures


def test_what_an_error_is_smaller_by_is_told_place_by_place() -> None:
    asked = answers(40)
    noise = np.random.default_rng(1).standard_normal(asked.values.shape) * 3
    told, reference = asked.values + noise, asked.values + noise
    # At each place the reference errs by 1 more, of its statics by 3.
    reference += np.sqrt(noise**2 + [3, 0, 0]) * np.sign(noise) - noise
    figures = asked.below(told, reference)
    assert figures["error_10_below_autoregression"] == pytest.approx(1)
    assert figures["static_error_10_below_autoregression"] == pytest.approx(3)
    assert figures["error_10_below_autoregression_standard_error"] == pytest.approx(0, abs=1e-9)
    assert asked.errors(told)["error_10_standard_error"] > 0.1
    assert asked.below(reference, told)["error_10_below_autoregression"] == pytest.approx(-1)
    assert not any("error_1_" in name for name in figures)


def test_outliers_count_in_no_error() -> None:
    asked = answers(4)
    told = asked.values.copy()
    told[2, 1] += 1000
    asked.counts[2, 1] = False
    assert asked.errors(told)["error_10"] == 0
    assert asked.below(told, asked.values)["error_10_below_autoregression"] == 0
    assert asked.crps(told[None])["crps_10"] == 0


def test_the_standard_error_is_that_of_files_not_of_places() -> None:
    values = np.repeat([1.0, 3.0], 50)
    files = np.repeat([0, 1], 50)
    # Two draws, of 1 and 3: as the standard error of their mean.
    assert standard_error(values, files) == pytest.approx(np.std([1, 3], ddof=1) / np.sqrt(2))
    assert standard_error(values, np.arange(100)) == pytest.approx(0.1005, abs=1e-3)
    assert standard_error(values, np.zeros(100, dtype=int)) == 0


def test_the_score_of_one_answer_is_its_absolute_error() -> None:
    asked = answers(10)
    assert asked.crps((asked.values + 0.5)[None])["crps_1"] == pytest.approx(0.5)


def test_the_score_of_gaussian_samples_is_the_known_one_and_best_for_the_true_width() -> None:
    random = np.random.default_rng(1)
    asked = answers(4000, horizons=(1,))

    def score(width: float) -> float:
        return asked.crps(width * random.standard_normal((16, *asked.values.shape)))["crps_1"]

    # E|X - y| - E|X - X'| / 2 of standard normals: 1 / sqrt(pi).
    assert score(1.0) == pytest.approx(1 / np.sqrt(np.pi), rel=0.02)
    assert score(1.0) < min(score(0.3), score(3.0))
