"""Comparisons of predictors that are known: one that copies, one that knows, one that is dead."""

from collections.abc import Sequence

import numpy as np
import pytest

from services.audio.track import DescriptorTrack
from services.errors import InvalidInputError, SettingsMismatchError
from services.predictor.evaluation.baselines import Baseline, Persistence
from services.predictor.evaluation.comparison import Comparison, compare
from services.predictor.evaluation.ground import ComparisonSettings, Contestant
from services.predictor.evaluation.material import Material
from services.predictor.port import Checkpoint, FloatArray, Predictor

NAMES = ("a", "b", "c")
SETTINGS = ComparisonSettings(
    places=24,
    horizons=(1, 10, 100),
    frames=150,
    long_frames=300,
    samples=4,
    novelty_windows=60,
    orders=(1, 2),
    batch=7,
)


def wandering(frames: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    values = random.standard_normal((frames, 3))
    for i in range(1, frames):
        values[i] += 0.9 * values[i - 1]
    return values


def track(seed: int, frames: int = 700, names: tuple[str, ...] = NAMES) -> DescriptorTrack:
    values = wandering(frames, seed) * [100.0, 1.0, 0.01] + [5.0, 0.0, -3.0]
    return DescriptorTrack(names, values.astype(np.float32), 44100, 1024, f"{seed}.wav")


MATERIAL = Material.of([track(seed) for seed in range(4)], [track(8), track(9)])


class Copying(Baseline):
    """Repeats a piece of the training tracks, which its seed draws."""

    def __init__(self, material: Material) -> None:
        super().__init__(material)
        self._known = material.training

    @property
    def window_frames(self) -> int:
        return 40

    @property
    def stochastic(self) -> bool:
        return True

    def _continue_many(
        self,
        windows: FloatArray,  # noqa: ARG002
        steps: int,
        seeds: Sequence[int],
        temperature: float,  # noqa: ARG002
        checkpoint: Checkpoint,  # noqa: ARG002
    ) -> FloatArray:
        return np.stack(
            [self._known[seed % 4].values[seed % 50 : seed % 50 + steps] for seed in seeds]
        )


class Turned(Baseline):
    """Another predictor that has its features in another order."""

    def __init__(self, material: Material, inner: Predictor) -> None:
        super().__init__(material)
        self._inner = inner

    @property
    def feature_names(self) -> tuple[str, ...]:
        return tuple(reversed(self._feature_names))

    def _continue_many(
        self,
        windows: FloatArray,
        steps: int,
        seeds: Sequence[int],
        temperature: float,  # noqa: ARG002
        checkpoint: Checkpoint,  # noqa: ARG002
    ) -> FloatArray:
        return self._inner.predict_many(windows[:, :, ::-1], steps, seeds=seeds)[:, :, ::-1]


def figures(comparison: Comparison, title: str) -> dict[str, float]:
    (found,) = (entry.figures for entry in comparison.entries if entry.title == title)
    return found


@pytest.fixture(scope="module")
def compared() -> Comparison:
    turned = Contestant("turned", Turned(MATERIAL, Persistence(MATERIAL)))
    return compare([Contestant("copying", Copying(MATERIAL)), turned], MATERIAL, SETTINGS)


def test_every_entry_has_every_horizon(compared: Comparison) -> None:
    for entry in compared.entries:
        if entry.kind != "recordings":
            assert {f"error_{ahead}" for ahead in (1, 10, 100)} <= entry.figures.keys()
            assert all(np.isfinite(value) for value in entry.figures.values())
            assert entry.example is not None
            assert entry.example.shape == (150, 3)


def test_places_are_the_same_for_all_whatever_window_they_look_at(compared: Comparison) -> None:
    # The longest window decides: 40 frames of the copying one.
    assert compared.heard.shape == (40, 3)
    alone = compare([], MATERIAL, SETTINGS)
    assert alone.heard.shape == (9, 3)
    mean = figures(compared, "training mean")
    assert mean["error_1"] != figures(alone, "training mean")["error_1"]


def test_columns_are_put_in_the_order_of_each_predictor(compared: Comparison) -> None:
    own = figures(compared, "persistence")
    assert figures(compared, "turned") == own


def test_a_predictor_that_copies_is_alive_and_caught(compared: Comparison) -> None:
    sampled = figures(compared, "copying, temperature 1")
    assert sampled["variance_ratio"] == pytest.approx(1, abs=0.3)
    assert sampled["nearest_window_50"] < 1e-6
    assert sampled["near_copy_share"] == 1
    autoregression = figures(compared, "linear autoregression, temperature 1")
    assert autoregression["near_copy_share"] < 0.2
    assert autoregression["recorded_nearest_window_50"] == sampled["recorded_nearest_window_50"]


def test_a_linear_process_is_best_told_by_the_linear_autoregression(compared: Comparison) -> None:
    own = figures(compared, "linear autoregression")
    sampled = figures(compared, "linear autoregression, temperature 1")
    persistence = figures(compared, "persistence")
    assert own["error_10"] < persistence["error_10"]
    assert own["variance_ratio"] < 0.3
    assert persistence["variance_ratio"] < 1e-5
    assert sampled["variance_ratio"] == pytest.approx(1, abs=0.3)
    assert sampled["long_variance_ratio"] == pytest.approx(1, abs=0.3)
    assert sampled["crps_10"] < own["crps_10"]
    # Entropy of its innovations, in z-scores: each has 0.19 of the variance.
    expected = -1.5 * np.log(2 * np.pi * np.e * 0.19)
    assert sampled["log_likelihood"] == pytest.approx(expected, abs=0.2)


def test_errors_are_told_beside_the_autoregression_s(compared: Comparison) -> None:
    name = "error_10_below_autoregression"
    own = figures(compared, "linear autoregression")
    assert name not in own
    for title in ("persistence", "copying", "linear autoregression, temperature 1"):
        beside = figures(compared, title)
        assert beside[name] == pytest.approx(own["error_10"] - beside["error_10"])
        assert beside[name] < 0


def test_the_training_tracks_stand_beside_the_held_out_ones(compared: Comparison) -> None:
    music = figures(compared, "recordings of the training part")
    assert music["variance_ratio"] == pytest.approx(1, abs=0.3)
    assert music["spectrum_distance"] < 0.5
    assert "error_1" not in music


def test_the_figures_of_one_predictor_tell_its_temperature(compared: Comparison) -> None:
    own = compared.figures_of("copying")
    assert own["sampled_near_copy_share"] == 1
    assert own["error_10"] == figures(compared, "copying")["error_10"]


def test_horizons_that_no_held_out_track_reaches_are_left_out() -> None:
    short = Material.of(MATERIAL.training, [track(8, 120), track(9, 30)])
    alone = compare([], short, SETTINGS)
    # 111 frames beyond the window: half of them are foretold, from the other half.
    assert (alone.horizons, alone.frames) == ((1, 10), 56)
    assert any("left out: 9.wav" in remark for remark in alone.remarks)
    with pytest.raises(InvalidInputError, match="9 frames, which leaves nothing"):
        compare([], Material.of(MATERIAL.training, [track(8, 9)]), SETTINGS)


def test_outliers_count_in_no_error() -> None:
    values = track(8).values.copy()
    values[300:303] = 1e6
    wild = DescriptorTrack(NAMES, values, 44100, 1024, "wild.wav")
    alone = compare([], Material.of(MATERIAL.training, [wild]), SETTINGS)
    assert figures(alone, "training mean")["error_10"] < 3


def test_a_predictor_of_other_features_is_refused() -> None:
    other = [track(seed, names=("a", "b", "d")) for seed in range(3)]
    stranger = Persistence(Material.of(other[:2], other[2:]))
    with pytest.raises(SettingsMismatchError, match=r"stranger: .* c is known"):
        compare([Contestant("stranger", stranger)], MATERIAL, SETTINGS)


def test_a_predictor_that_diverged_is_told_by_name() -> None:
    class Diverged(Persistence):
        def _continue_many(self, windows: FloatArray, steps: int, *_: object) -> FloatArray:
            return np.full((len(windows), steps, 3), np.nan, dtype=np.float32)

    with pytest.raises(InvalidInputError, match="what wreck tells is not finite"):
        compare([Contestant("wreck", Diverged(MATERIAL))], MATERIAL, SETTINGS)
