"""What our trainings have beyond the published ones."""

import copy
import weakref
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load

from services.errors import InvalidInputError, SettingsMismatchError
from services.learning.precision import Precision
from services.predictor.loading import load_predictor
from services.predictor.training import trainer as training_module
from services.predictor.training.settings import PredictorTraining
from services.predictor.training.trainer import PredictorTrainer
from tests.unit.predictor.music import STATICS, tracks

SETTINGS = PredictorTraining(
    window_size=6,
    forecast_size=3,
    hidden_size=8,
    num_layers=1,
    nhead=1,
    dim_feedforward=8,
    dim_pos_encoding=4,
    dropout=0.0,
    batch_size=8,
    learning_rate=0.01,
    epochs=2,
)
ONE_STEP = ("LSTM", "TransformerEncoderOnlyModel")


def trainer(architecture: str = "LSTM", **changes: Any) -> PredictorTrainer:
    settings = replace(SETTINGS, selected_model=architecture, **changes)
    return PredictorTrainer(settings, tracks(4, 60), seed=7)


def test_with_computed_deltas_the_network_knows_the_statics_alone() -> None:
    trains = trainer(deltas="computed")
    trains.step()
    config = trains.config()
    assert tuple(config["feature_names"]) == STATICS
    assert config["deltas"] == "computed"
    predicts = load_predictor(config, trains.weights())
    whole = tracks(1, 60)[0]
    told = predicts.predict(whole.ordered(predicts.feature_names).values, 5)
    assert told.shape == (5, 39)
    assert predicts.feature_names == whole.feature_names


def test_columns_in_another_order_teach_the_same() -> None:
    settings = replace(SETTINGS, deltas="computed")
    as_they_come = PredictorTrainer(settings, tracks(4, 60), seed=7)
    sorted_names = sorted(as_they_come.config()["feature_names"])
    assert sorted_names != list(STATICS)
    ordered = [track.ordered(sorted(track.feature_names)) for track in tracks(4, 60)]
    other = PredictorTrainer(settings, ordered, seed=7)
    as_they_come.step()
    other.step()
    assert other.weights() == as_they_come.weights()


def test_deltas_of_other_features_are_not_computed() -> None:
    others = [
        replace(track, feature_names=tuple(f"chroma{i}" for i in range(39)))
        for track in tracks(2, 60)
    ]
    with pytest.raises(InvalidInputError, match=r"chroma0, .* choose deltas 'predicted'"):
        PredictorTrainer(replace(SETTINGS, deltas="computed"), others)


def test_deltas_need_a_window_that_they_reach_into() -> None:
    with pytest.raises(InvalidInputError, match="window_size is 3: deltas look 4 frames back"):
        trainer(deltas="computed", window_size=3)


def test_what_is_kept_is_the_average_of_the_weights() -> None:
    trains = trainer(average_decay=0.9)
    expected = {name: each.clone() for name, each in trains.network.state_dict().items()}
    for step in range(1, 6):
        trains.step()
        decay = min(0.9, step / (step + 9))
        for name, each in trains.network.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * each
    kept = load(trains.weights())
    for name, each in expected.items():
        torch.testing.assert_close(kept[name], each)
    assert trains.validate() == trainer_with(trains, kept).validate()


def trainer_with(like: PredictorTrainer, weights: dict[str, torch.Tensor]) -> PredictorTrainer:
    other = PredictorTrainer(replace(like.settings, average_decay=0.0), tracks(4, 60), seed=7)
    other.network.load_state_dict(weights)
    return other


def test_the_learning_rate_rises_first() -> None:
    trains = trainer(warmup_steps=4, schedule="cosine", steps=8)
    rates = [float(trains.step()["learning_rate"]) for _ in range(9)]
    rise = np.minimum(np.arange(1, 10) / 4, 1)
    fall = (1 + np.cos(np.pi * np.minimum(np.arange(9) / 8, 1))) / 2
    np.testing.assert_allclose(rates, 0.01 * rise * fall, atol=1e-8)


def test_steps_go_before_epochs() -> None:
    assert trainer().total_steps == 2 * trainer().steps_per_epoch
    assert trainer(steps=5).total_steps == 5


def test_a_training_may_be_prolonged_unless_its_learning_rate_follows_from_its_length() -> None:
    state = trainer(steps=5).state_dict()
    trainer(steps=9).load_state_dict(state)
    state = trainer(steps=5, schedule="cosine").state_dict()
    with pytest.raises(SettingsMismatchError, match="steps was 5 and is 9"):
        trainer(steps=9, schedule="cosine").load_state_dict(state)


def test_an_anchor_is_fitted_a_part_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_module, "FITTED_AT_ONCE", 10)
    trains = trainer("TransformerModel", anchor="linear")
    given: list[weakref.ref[torch.Tensor]] = []
    most = 0
    at = trains._training.at

    def noted(starts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        nonlocal most
        most = max(most, sum(part() is not None for part in given))
        parts = at(starts)
        given.append(weakref.ref(parts[0]))
        return parts

    trains._training.at = noted  # type: ignore[method-assign]
    trains.step()
    assert len(given) > 2 * len(trains.corpus.training.starts) / 10
    assert most <= 2


def test_a_training_that_goes_on_fits_no_anchor_again() -> None:
    before = trainer("TransformerModel", anchor="linear", average_decay=0.9)
    before.step()
    resumed = trainer("TransformerModel", anchor="linear", average_decay=0.9)
    resumed.load_state_dict(copy.deepcopy(before.state_dict()))
    sizes: list[int] = []
    at = resumed._training.at

    def noted(starts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        sizes.append(len(starts))
        return at(starts)

    resumed._training.at = noted  # type: ignore[method-assign]
    resumed.step()
    before.step()
    assert sizes == [SETTINGS.batch_size]
    assert resumed.weights() == before.weights()


def test_the_average_begins_with_the_fitted_anchor() -> None:
    trains = trainer("LSTM", anchor="linear", average_decay=0.999, learning_rate=1e-6)
    trains.step()
    told, kept = (
        dict(network.named_parameters())["anchor.linear.weight"]
        for network in (trains.network, trains.kept)
    )
    torch.testing.assert_close(told, kept, rtol=0, atol=1e-4)


@pytest.mark.parametrize("architecture", ONE_STEP)
def test_rollouts_teach_with_what_the_model_said_itself(architecture: str) -> None:
    """What is taught beyond the window is what prediction goes on with."""
    trains = trainer(architecture, rollout_frames=4)
    trains.network.eval()
    frames, _ = trains._training.at(trains._training.starts[:3])
    assert frames.shape[1] == 10
    taught = trains.network.taught(frames, 6)
    alone = trains.network.continued(frames[:, :6], 4, 1, "sliding", lambda: None)
    torch.testing.assert_close(taught[:, 5:], alone)
    torch.testing.assert_close(taught[:, :5], trains.network.taught(frames[:, :7], 6)[:, :5])


@pytest.mark.parametrize("architecture", ONE_STEP)
def test_rollouts_lower_the_error_of_what_it_goes_on_with(architecture: str) -> None:
    """On the sounds that it learns from: three made-up ones tell nothing of a fourth."""
    trains = trainer(architecture, rollout_frames=6, deltas="computed")
    before = error_of_going_on(trains)
    for _ in range(30):
        trains.step()
    assert error_of_going_on(trains) < 0.7 * before
    assert trains.config()["forecast_frames"] == 1


@torch.inference_mode()
def error_of_going_on(trains: PredictorTrainer) -> float:
    """Mean squared error of the six frames after a window, the model hearing itself."""
    frames, _ = trains._training.at(trains._training.starts)
    told = trains.network.eval().continued(frames[:, :6], 6, 1, "sliding", lambda: None)
    return float((told - frames[:, 6:]).square().mean())


def test_the_rollout_error_is_that_of_the_predictor() -> None:
    """Held-out sounds of 60 frames have 54 after a window of 6."""
    trains = trainer("TransformerModel", deltas="computed", outlier_deviations=0.0)
    trains.step()
    predicts = load_predictor(trains.config(), trains.weights())
    held = [track for track in tracks(4, 60) if track.source in trains.corpus.held_out]
    errors = []
    for track in held:
        values = track.ordered(predicts.feature_names).values
        told = predicts.predict(values[:6], 54)[:, :13]
        scales = trains.corpus.statistics.scales
        errors.append((((told - values[6:, :13]) / scales) ** 2).mean())
    assert trains.validate()["rollout_mse"] == pytest.approx(np.mean(errors), rel=1e-3)


@pytest.mark.parametrize("most", [1, 3])
def test_the_loss_may_be_measured_on_fewer_windows(most: int) -> None:
    trains = trainer(validation_windows=most)
    assert len(trains._validation._starts) == most
    assert trains.validate()["mse"] > 0


def test_half_precision_trains_float32_weights() -> None:
    trains = trainer(precision=Precision(compute="bf16"))
    other = trainer()
    for _ in range(5):
        half, whole = trains.step(), other.step()
    assert {tensor.dtype for tensor in trains.network.state_dict().values()} == {torch.float32}
    assert half["mse"].dtype == torch.float32
    assert float(half["mse"]) == pytest.approx(float(whole["mse"]), rel=0.05)
    assert trains.weights() != other.weights()


def test_a_mean_of_the_window_is_no_anchor_of_a_single_step() -> None:
    with pytest.raises(InvalidInputError, match="anchor is 'mean', but LSTM tells one frame"):
        trainer(anchor="mean")


@pytest.mark.parametrize(
    ("architecture", "name", "value"),
    [
        ("ProbabilisticTransformer", "anchor", "last"),
        ("ProbabilisticTransformer", "anchor", "linear"),
        ("ProbabilisticTransformer", "anchor", "mean"),
        ("ProbabilisticTransformer", "rollout_frames", 2),
        ("LSTMEncoderDecoderModel", "rollout_frames", 2),
        ("TransformerModel", "rollout_frames", 2),
    ],
)
def test_what_an_architecture_would_ignore_is_refused(
    architecture: str, name: str, value: Any
) -> None:
    with pytest.raises(InvalidInputError, match=f"{name} is .* {architecture} ") as raised:
        PredictorTraining(selected_model=architecture, **{name: value})
    assert raised.value.culprit == name


@pytest.mark.parametrize(
    ("name", "value"),
    [("steps", 0), ("patience", -1), ("rollout_frames", 0), ("average_decay", 1.0)],
)
def test_options_that_cannot_work_are_named(name: str, value: Any) -> None:
    with pytest.raises(InvalidInputError) as raised:
        trainer(**{name: value})
    assert raised.value.culprit == name
