"""What the probabilistic Transformer promises: drawn sequences are alive, likely and new.

It learns a process that no linear autoregression can describe. Predictors that are known to break
each of the promises show that none of these tests passes by itself.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from services.predictor.evaluation.autoregression import LinearAutoregression
from services.predictor.evaluation.baselines import Baseline
from services.predictor.evaluation.comparison import AUTOREGRESSION, compare
from services.predictor.evaluation.ground import ComparisonSettings, Contestant
from services.predictor.evaluation.material import Material
from services.predictor.loading import load_predictor
from services.predictor.port import Checkpoint, FloatArray, Predictor
from services.predictor.training.presets import preset
from services.predictor.training.settings import PROBABILISTIC
from services.predictor.training.trainer import PredictorTrainer
from tests.unit.predictor.processes import switching

FRAMES, WINDOW, STEPS = 2000, 64, 1800
SETTINGS = ComparisonSettings(
    places=96,
    horizons=(10,),
    frames=150,
    long_frames=FRAMES,
    samples=8,
    novelty_windows=256,
    orders=(1, 2, 4),
    batch=96,
)
LIVELY = 0.2
"""How far from 1 a ratio to real sequences may be."""
MOST_MOVED = 0.1
"""Standard deviations that a mean may move by within a sequence."""
LIKELIER_NATS = 4.0
"""A frame, beyond the linear autoregression."""
NEARER = 0.8
"""Of the distance between held-out sequences and the training part."""
MOST_COPIES = 0.1
"""Share of windows nearer to the training part than 99 % of held-out ones are."""
PROMISES = ("variance", "spectrum", "drift", "likelihood", "crps", "novelty")


@cache
def material() -> Material:
    """Sequences to learn from, and others that no training hears."""
    return Material.of(
        switching(24, 2600, seed=1),
        switching(SETTINGS.places, WINDOW + FRAMES + 36, seed=2),
        unheard=True,
        outlier_deviations=0,
    )


@cache
def trained(steps: int) -> Predictor:
    """A small one, stored and loaded again."""
    settings = replace(
        preset("demo-cpu", PROBABILISTIC),
        window_size=WINDOW,
        hidden_size=48,
        dim_feedforward=96,
        attention_frames=24,
        mixtures=6,
        batch_size=16,
        # Noise is to make up for a small corpus, and makes drawn sequences quieter.
        input_noise=0.0,
        outlier_deviations=0.0,
        steps=steps,
    )
    trains = PredictorTrainer(settings, material().training)
    for _ in range(steps):
        trains.step()
    return load_predictor(json.loads(json.dumps(trains.config())), trains.weights())


class Drawn(Baseline):
    """Whatever it hears, the process itself from a state of its own, swelling if told to."""

    stochastic = True
    swelling = False

    def _continue_many(
        self,
        windows: FloatArray,
        steps: int,
        seeds: Sequence[int],
        temperature: float,  # noqa: ARG002
        checkpoint: Checkpoint,  # noqa: ARG002
    ) -> FloatArray:
        sounds = switching(len(windows), steps, seed=1000 + seeds[0])
        values = np.stack([each.values for each in sounds])
        if not self.swelling:
            return values
        means = values.mean(axis=(0, 1))
        envelope = np.linspace(0.6, 1.4, steps, dtype=np.float32)[:, np.newaxis]
        swollen: FloatArray = means + envelope * (values - means)
        return swollen


class Swelling(Drawn):
    """One whose sequences begin quietly and end loudly."""

    swelling = True


class Copying(Baseline):
    """Replays pieces of the training part."""

    stochastic = True

    def __init__(self, known: Material) -> None:
        super().__init__(known)
        self._known = known.training

    def _continue_many(
        self,
        windows: FloatArray,  # noqa: ARG002
        steps: int,
        seeds: Sequence[int],
        temperature: float,  # noqa: ARG002
        checkpoint: Checkpoint,  # noqa: ARG002
    ) -> FloatArray:
        tracks = [self._known[seed % len(self._known)].values for seed in seeds]
        return np.stack(
            [track[seed % 500 :][:steps] for seed, track in zip(seeds, tracks, strict=True)]
        )


class Flat(LinearAutoregression):
    """The most likely continuation of a linear autoregression at any temperature."""

    def _continue_many(
        self,
        windows: FloatArray,
        steps: int,
        seeds: Sequence[int],
        temperature: float,  # noqa: ARG002
        checkpoint: Checkpoint,
    ) -> FloatArray:
        return super()._continue_many(windows, steps, seeds, 0, checkpoint)


def broken(predictors: dict[str, Predictor], settings: ComparisonSettings) -> dict[str, set[str]]:
    """Which promises each of them breaks, and the linear autoregression."""
    contestants = [Contestant(name, each) for name, each in predictors.items()]
    compared = compare(contestants, material(), settings)
    linear = compared.figures_of(AUTOREGRESSION)
    return {
        name: _broken(compared.figures_of(name), linear) for name in (*predictors, AUTOREGRESSION)
    }


def _broken(figures: dict[str, float], linear: dict[str, float]) -> set[str]:
    long = {
        name.removeprefix("sampled_long_"): value
        for name, value in figures.items()
        if name.startswith("sampled_long_") and "training" not in name
    }
    octaves = [value for name, value in long.items() if name.startswith("spectrum_ratio_")]
    assert len(octaves) == 8
    likelihood = figures.get("sampled_log_likelihood", -np.inf)
    kept = (
        abs(long["variance_ratio"] - 1) <= LIVELY,
        all(abs(octave - 1) <= LIVELY for octave in octaves),
        abs(long["drift_variance"] - 1) <= LIVELY and long["drift_mean"] <= MOST_MOVED,
        likelihood >= linear["sampled_log_likelihood"] + LIKELIER_NATS,
        figures["sampled_crps_10"] <= linear["sampled_crps_10"],
        figures["sampled_near_copy_share"] <= MOST_COPIES
        and all(
            figures[f"sampled_nearest_window_{which}"]
            >= NEARER * figures[f"sampled_recorded_nearest_window_{which}"]
            for which in (1, 10, 50)
        ),
    )
    return {promise for promise, is_kept in zip(PROMISES, kept, strict=True) if not is_kept}


@pytest.mark.slow
def test_drawn_sequences_are_alive_likely_and_new() -> None:
    assert broken({"trained": trained(STEPS)}, SETTINGS)["trained"] == set()


def test_each_promise_is_broken_by_predictors_that_are_known_to_break_it() -> None:
    known: dict[str, Predictor] = {
        each.__name__: each(material()) for each in (Drawn, Swelling, Copying, Flat)
    }
    found = broken(known, replace(SETTINGS, places=48, samples=2, novelty_windows=96))
    # The process itself is alive and new, and knows nothing of what it goes on from.
    assert found["Drawn"] == {"likelihood", "crps"}
    assert found["Swelling"] >= {"drift"}
    assert found["Copying"] == {"likelihood", "crps", "novelty"}
    assert found["Flat"] >= {"variance", "spectrum", "crps"}
    assert found[AUTOREGRESSION] >= {"likelihood"}


@pytest.mark.parametrize(
    ("steps", "frames"), [(10, 100), pytest.param(STEPS, FRAMES, marks=pytest.mark.slow)]
)
def test_a_sequence_follows_from_its_seed_and_without_chance_from_nothing(
    steps: int, frames: int
) -> None:
    predictor = trained(steps)
    window = material().held_out[0].values[:WINDOW]

    def drawn(seed: int, temperature: float) -> FloatArray:
        return predictor.predict(window, frames, seed=seed, temperature=temperature)

    first, likeliest = drawn(3, 1.0), drawn(3, 0.0)
    np.testing.assert_array_equal(drawn(3, 1.0), first)
    np.testing.assert_array_equal(drawn(4, 0.0), likeliest)
    for other in (drawn(4, 1.0), likeliest):
        # From the first frame on, and in every part of the sequence.
        assert (np.abs(other - first)[:, :13].max(axis=1) > 0).all()
