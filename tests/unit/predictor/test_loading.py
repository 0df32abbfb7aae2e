"""Configs of the store that cannot be: refused by the key, before anything is computed."""

import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save

from services.errors import CorruptObjectError
from services.predictor.config import PredictorConfig
from services.predictor.loading import ARCHITECTURES, load_predictor
from services.predictor.networks.network import NetworkShape

CONFIG = PredictorConfig(
    architecture="TransformerEncoderOnlyModel",
    shape=NetworkShape(2, 8, 1, nhead=2, dim_feedforward=4, dim_pos_encoding=2),
    window_frames=5,
    forecast_frames=3,
    feature_names=("a", "b"),
    means=(0.0, 1.0),
    standard_deviations=(1.0, 0.0),
    sample_rate_hertz=44100,
    hop_length_samples=1024,
)
WRONG: dict[str, object] = {
    "window_frames": 0,
    "forecast_frames": 0,
    "sample_rate_hertz": -1,
    "hop_length_samples": 0,
    "feature_names": ["a", "a"],
    "means": [math.nan, 0.0],
    "standard_deviations": [1.0, -1.0],
    "shape.hidden_size": 0,
    "shape.num_layers": 0,
    "shape.num_encoder_layers": 0,
    "shape.nhead": 0,
    "shape.dim_feedforward": -1,
    "shape.dim_pos_encoding": -1,
    "shape.dropout": math.nan,
    "shape.attention_frames": 0,
    "shape.mixtures": 0,
}


def loaded(key: str, value: object, architecture: str = CONFIG.architecture) -> None:
    """Loads the config with another value at `key`, and the weights that it had before."""
    config = replace(CONFIG, architecture=architecture)
    torch.manual_seed(0)
    weights = save(ARCHITECTURES[architecture](config.shape).state_dict())
    plain = config.to_json()
    load_predictor(plain, weights)
    *place, name = key.split(".")
    (plain[place[0]] if place else plain)[name] = value
    load_predictor(plain, weights)


@pytest.mark.parametrize("key", WRONG)
def test_a_value_that_cannot_be_is_told_by_its_key(key: str) -> None:
    with pytest.raises(CorruptObjectError, match=r"config\.json of a predictor") as raised:
        loaded(key, WRONG[key])
    assert raised.value.culprit == key


def test_a_deviation_that_is_no_number_is_told_by_its_key() -> None:
    with pytest.raises(CorruptObjectError) as raised:
        loaded("standard_deviations", [math.nan, 1.0])
    assert raised.value.culprit == "standard_deviations"


@pytest.mark.parametrize("architecture", ["TransformerEncoderOnlyModel", "TransformerModel"])
def test_heads_that_do_not_share_the_width_are_the_configs_fault(architecture: str) -> None:
    with pytest.raises(CorruptObjectError, match="nhead is 3") as raised:
        loaded("shape.nhead", 3, architecture)
    assert raised.value.culprit == "shape.nhead"
