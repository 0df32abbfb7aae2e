"""Training: real steps on small corpora."""

import io
import json
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch

from services.audio.track import DescriptorTrack
from services.errors import InvalidInputError, SettingsMismatchError
from services.predictor.loading import ARCHITECTURES, load_predictor
from services.predictor.training.settings import (
    ARCHITECTURE_NAMES,
    PROBABILISTIC,
    ROLLED_OUT,
    PredictorTraining,
)
from services.predictor.training.trainer import PredictorTrainer

NAMES = ("mfcc0", "mfcc1", "mfcc2", "mfcc10")
SMALL = PredictorTraining(
    window_size=6,
    forecast_size=3,
    hidden_size=16,
    num_layers=1,
    nhead=2,
    dim_feedforward=16,
    dim_pos_encoding=4,
    dropout=0.0,
    batch_size=8,
    learning_rate=0.02,
    epochs=4,
)
ALL = sorted(ARCHITECTURES)


def waves(frames: int, source: str, *, phase: float = 0.0) -> DescriptorTrack:
    """Four slow sines at other levels and sizes: what comes next can be told."""
    angles = 0.35 * np.arange(frames)[:, None] + phase + np.arange(4)
    values = np.sin(angles) * [10.0, 1.0, 0.1, 5.0] + [-300.0, 0.0, 2.0, 40.0]
    return DescriptorTrack(NAMES, values.astype(np.float32), 22050, 512, source)


TRACKS = [waves(60, f"{i}.wav", phase=i) for i in range(5)]


def trainer(architecture: str = "LSTM", *, seed: int = 7, **changes: Any) -> PredictorTrainer:
    settings = replace(SMALL, selected_model=architecture, **changes)
    return PredictorTrainer(settings, TRACKS, seed=seed)


@pytest.mark.parametrize("architecture", ALL)
def test_training_lowers_the_error_on_held_out_sound(architecture: str) -> None:
    trains = trainer(architecture)
    figure = trains.network.loss_name
    before = trains.validate()[figure]
    for _ in range(60):
        trains.step()
    assert trains.validate()[figure] < before - 0.5 * abs(before)


def test_trainings_of_other_seeds_are_checked_on_the_same_files() -> None:
    held_out = {trainer(seed=seed).corpus.held_out for seed in range(6)}
    assert len(held_out) == 1
    assert {trainer(validation_seed=seed).corpus.held_out for seed in range(6)} != held_out


@pytest.mark.parametrize("architecture", ALL)
def test_what_was_trained_predicts_raw_values_once_loaded(architecture: str) -> None:
    trains = trainer(architecture)
    for _ in range(60):
        trains.step()
    predicts = load_predictor(json.loads(json.dumps(trains.config())), trains.weights())
    assert predicts.window_frames == SMALL.window_size
    assert (predicts.sample_rate_hertz, predicts.hop_length_samples) == (22050, 512)
    whole = waves(60, "new", phase=0.5).ordered(predicts.feature_names).values
    told = predicts.predict(whole[:40], 3)
    scale = whole.std(axis=0)
    assert (np.abs(told - whole[40:43]) / scale).mean() < 0.5


def test_the_same_seed_trains_the_same_weights_and_another_does_not() -> None:
    def trained(seed: int) -> bytes:
        trains = trainer("TransformerEncoderOnlyModel", seed=seed, dropout=0.2)
        for _ in range(5):
            trains.step()
        return trains.weights()

    assert trained(7) == trained(7)
    assert trained(7) != trained(8)


def test_an_epoch_sees_every_training_window_once() -> None:
    trains = trainer()
    seen: list[int] = []
    at = trains._training.at
    trains._training.at = lambda starts: (seen.extend(starts.tolist()), at(starts))[1]  # type: ignore[method-assign]
    sizes = []
    for _ in range(trains.steps_per_epoch):
        before = len(seen)
        trains.step()
        sizes.append(len(seen) - before)
    assert sorted(seen) == sorted(trains.corpus.training.starts.tolist())
    assert set(sizes[:-1]) == {SMALL.batch_size}
    first = list(seen)
    trains.step()
    assert seen[len(first) :] != first[: SMALL.batch_size]


def test_outliers_pull_nothing_towards_them() -> None:
    spoilt = [replace(track, values=track.values.copy()) for track in TRACKS]
    for track in spoilt:
        track.values[30] = 1e6
    masked = PredictorTrainer(replace(SMALL, input_noise=0.0), spoilt, seed=7)
    counts = masked.corpus.training.counts
    assert np.flatnonzero(counts == 0).tolist() == [30, 90, 150, 210]
    clean = PredictorTrainer(SMALL, TRACKS, seed=7)
    np.testing.assert_allclose(
        masked.corpus.statistics.means, clean.corpus.statistics.means, rtol=0.1, atol=0.2
    )
    starts = torch.tensor([31 - SMALL.window_size - 1])
    frames, counted = masked._training.at(starts)
    frames[:, -1] = 1e9
    loss = masked.network.loss(frames, frames, counted, SMALL.window_size)
    assert loss.isfinite()
    assert loss < 100


def test_a_batch_of_nothing_but_outliers_teaches_nothing() -> None:
    trains = trainer()
    trains._training._counts.zero_()
    before = trains.weights()
    assert trains.step()["mse"] == 0
    assert trains.weights() == before


def test_features_that_never_change_do_no_harm() -> None:
    tracks = [replace(track, values=np.ones_like(track.values)) for track in TRACKS]
    trains = PredictorTrainer(SMALL, tracks, seed=1)
    trains.step()
    assert np.isfinite(trains.validate()["mse"])
    told = load_predictor(trains.config(), trains.weights()).predict(tracks[0].values, 4)
    assert np.isfinite(told).all()


def learning_rates(trains: PredictorTrainer, steps: int) -> list[float]:
    rates = []
    for _ in range(steps):
        trains.step()
        rates.append(trains._optimizer.param_groups[0]["lr"])
    return rates


def test_the_learning_rate_is_constant_unless_a_schedule_is_chosen() -> None:
    for architecture in ALL:
        assert set(learning_rates(trainer(architecture, batch_size=1000), 3)) == {0.02}


def test_the_cosine_schedule_falls_to_nothing_over_all_epochs() -> None:
    trains = trainer(schedule="cosine", batch_size=1000, epochs=5)
    assert trains.total_steps == 5
    rates = learning_rates(trains, 6)
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == 0.02
    assert rates[-1] == 0


def test_the_published_schedule_decays_the_encoder_only_model_alone() -> None:
    published: dict[str, Any] = {"schedule": "published", "batch_size": 1000}
    rates = learning_rates(trainer("TransformerEncoderOnlyModel", **published), 3)
    assert rates == pytest.approx([0.02, 0.019, 0.01805])
    assert set(learning_rates(trainer("LSTM", **published), 3)) == {0.02}


def test_the_published_decay_freezes_the_model_by_epoch_200_and_no_other_schedule_does() -> None:
    def rate(schedule: str) -> float:
        trains = trainer(
            "TransformerEncoderOnlyModel", schedule=schedule, batch_size=1000, epochs=1000
        )
        trains.steps = 200 * trains.steps_per_epoch
        return float(trains.step()["learning_rate"]) / trains.settings.learning_rate

    assert rate("published") < 1e-4
    assert rate("constant") == pytest.approx(1)
    assert rate("cosine") > 0.9


def test_free_running_flat_is_told_from_moving_like_the_recordings() -> None:
    trains = trainer()
    with torch.no_grad():
        for weight in trains.network.parameters():
            weight.zero_()
    flat = trains.validate()["free_run"]
    trains = trainer()
    for _ in range(200):
        trains.step()
    assert trains.validate()["free_run"] < 0.5 * flat


def test_training_settings_are_recorded_with_the_model() -> None:
    trained = trainer(seed=7)
    trained.step()
    recorded = trained.config()["training"]
    beside = {
        "planned_steps": None,
        "seed": 7,
        "steps": 1,
        "devices": 1,
        "validation_files": list(trained.corpus.held_out),
        "held_out_start": 0,
    }
    assert recorded == asdict(replace(SMALL, selected_model="LSTM")) | beside


def test_heads_that_do_not_fit_the_features_are_named() -> None:
    with pytest.raises(InvalidInputError, match="nhead is 3"):
        trainer("TransformerModel", nhead=3)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("selected_model", "GRU"),
        ("window_size", 0),
        ("forecast_size", 0),
        ("batch_size", 0),
        ("epochs", 0),
        ("dim_pos_encoding", -1),
        ("learning_rate", 0.0),
        ("dropout", 1.0),
        ("validation_share", 1.0),
    ],
)
def test_settings_that_cannot_work_are_named(name: str, value: object) -> None:
    with pytest.raises(InvalidInputError) as raised:
        PredictorTraining(**{name: value})  # type: ignore[arg-type]
    assert raised.value.culprit == name


def test_architecture_names_are_those_that_can_be_built() -> None:
    assert set(ARCHITECTURE_NAMES) == set(ARCHITECTURES)


@pytest.mark.parametrize("architecture", ALL)
@pytest.mark.parametrize("steps", [3, 38])
def test_a_training_goes_on_from_its_state_to_the_same_weights(
    architecture: str, steps: int
) -> None:
    """38 steps are more than an epoch, and end within one."""

    def fresh() -> PredictorTrainer:
        return trainer(
            architecture,
            dropout=0.2,
            input_noise=0.1,
            schedule="cosine",
            warmup_steps=5,
            average_decay=0.9,
            anchor="none" if architecture == PROBABILISTIC else "linear",
            rollout_frames=2 if architecture in ROLLED_OUT else 1,
        )

    undisturbed, before = fresh(), fresh()
    for _ in range(steps + 4):
        undisturbed.step()
    for _ in range(steps):
        before.step()
    before.validate()
    stored = io.BytesIO()
    torch.save(before.state_dict(), stored)
    stored.seek(0)
    resumed = fresh()
    resumed.load_state_dict(torch.load(stored, weights_only=True))
    torch.rand(3)
    for _ in range(4):
        last = resumed.step()
    assert resumed.weights() == undisturbed.weights()
    assert resumed.validate() == undisturbed.validate()
    assert resumed.steps == steps + 4
    assert set(last) == {resumed.network.loss_name, "learning_rate", "gradient_norm/network"}


def test_a_state_of_other_settings_is_refused_by_name() -> None:
    with pytest.raises(SettingsMismatchError, match=r"hidden_size was 16 .* is 8"):
        trainer(hidden_size=8).load_state_dict(trainer().state_dict())
