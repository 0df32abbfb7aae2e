"""The published predictors, weights and answers, against ours."""

import argparse
import json
import pathlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save

from services.predictor.loading import load_predictor
from services.predictor.networks.network import Rollout
from services.predictor.port import Predictor
from services.predictor.published import from_published

GOLDEN = Path(__file__).parent / "predictor"
TOLERANCE = 1e-4
ARCHITECTURES = (
    "LSTM",
    "LSTMEncoderDecoderModel",
    "TransformerEncoderOnlyModel",
    "TransformerModel",
)
ALL_AT_ONCE = ("LSTMEncoderDecoderModel", "TransformerModel")


def published(architecture: str) -> tuple[dict[str, Any], dict[str, str]]:
    allowed = [argparse.Namespace, pathlib.PosixPath]
    with torch.serialization.safe_globals(allowed):
        checkpoint = torch.load(GOLDEN / architecture / "checkpoint.ckpt", weights_only=True)
    return checkpoint, json.loads((GOLDEN / architecture / "model_args.json").read_text())


def predictor(architecture: str, rollout: Rollout) -> Predictor:
    checkpoint, arguments = published(architecture)
    with np.load(GOLDEN / "data_stat.npz") as data_stat:
        config, state = from_published(checkpoint, data_stat, arguments, rollout=rollout)
    return load_predictor(json.loads(json.dumps(config)), save(state))


def answers(architecture: str, steps: int, rollout: Rollout) -> np.ndarray:
    """Predictions for the golden windows, z-scored as the golden ones are."""
    with np.load(GOLDEN / "data_stat.npz") as data_stat:
        mean, std = data_stat["mean"], data_stat["std"]
    predicts = predictor(architecture, rollout)
    windows = np.load(GOLDEN / "window.npy") * std + mean
    raw = [predicts.predict(window.astype(np.float32), steps) for window in windows]
    return (np.stack(raw) - mean) / std


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_six_steps_are_those_of_the_published_model(architecture: str) -> None:
    expected = np.load(GOLDEN / architecture / "prediction.npy")
    answer = answers(architecture, 6, "published")
    assert np.abs(answer - expected).max() <= TOLERANCE * np.abs(expected).max()


@pytest.mark.parametrize("architecture", ALL_AT_ONCE)
def test_four_steps_at_once_are_those_of_the_published_model(architecture: str) -> None:
    expected = np.load(GOLDEN / architecture / "prediction_4_steps.npy")
    answer = answers(architecture, 4, "published")
    assert np.abs(answer - expected).max() <= TOLERANCE * np.abs(expected).max()


@pytest.mark.parametrize("architecture", ALL_AT_ONCE)
def test_sliding_forecasts_as_trained_and_cuts(architecture: str) -> None:
    expected = np.load(GOLDEN / architecture / "prediction.npy")
    for steps in (4, 6):
        answer = answers(architecture, steps, "sliding")
        assert np.abs(answer - expected[:, :steps]).max() <= TOLERANCE * np.abs(expected).max()


def test_sliding_and_growing_context_agree_on_the_first_step_alone() -> None:
    expected = np.load(GOLDEN / "TransformerEncoderOnlyModel" / "prediction.npy")
    differences = np.abs(answers("TransformerEncoderOnlyModel", 6, "sliding") - expected)
    assert differences[:, 0].max() <= TOLERANCE
    assert differences[:, 1:].max() > 100 * TOLERANCE


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_published_window_size_counts_the_forecast_in(architecture: str) -> None:
    assert predictor(architecture, "sliding").window_frames == 10


def test_columns_stand_in_string_order() -> None:
    assert predictor("LSTM", "sliding").feature_names[:4] == ("mfcc0", "mfcc1", "mfcc10", "mfcc11")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_strings_and_values_of_hyper_parameters_read_the_same(architecture: str) -> None:
    checkpoint, arguments = published(architecture)
    with np.load(GOLDEN / "data_stat.npz") as data_stat:
        from_strings, _ = from_published(checkpoint, data_stat, arguments)
        from_values, _ = from_published(checkpoint, data_stat)
    assert from_strings == from_values
