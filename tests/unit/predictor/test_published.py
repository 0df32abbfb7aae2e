"""Published checkpoints that are unlike the golden ones."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save

from services.errors import CorruptObjectError, InvalidInputError
from services.predictor.config import PredictorConfig
from services.predictor.loading import load_predictor
from services.predictor.networks.lstm import LSTM
from services.predictor.networks.lstm_encoder_decoder import LSTMEncoderDecoder
from services.predictor.networks.network import NetworkShape
from services.predictor.published import from_published

FEATURES = 39
STATISTICS = {"mean": np.zeros(FEATURES), "std": np.ones(FEATURES)}


def arguments(**changes: Any) -> dict[str, Any]:
    return {
        "selected_model": "LSTM",
        "descriptor_size": FEATURES,
        "hidden_size": 8,
        "num_layers": 1,
        "window_size": 5,
        "forecast_size": 0,
        "dim_pos_encoding": 26,
        "dropout": 0.1,
    } | changes


def checkpoint(network: torch.nn.Module, hyper_parameters: object = None) -> dict[str, Any]:
    return {"state_dict": network.state_dict(), "hyper_parameters": {"config": hyper_parameters}}


def lstm() -> LSTM:
    return LSTM(NetworkShape(FEATURES, hidden_size=8, num_layers=1))


def test_rate_and_hop_of_early_runs_are_those_that_the_code_took() -> None:
    config, _ = from_published(checkpoint(lstm(), SimpleNamespace(**arguments())), STATISTICS)
    assert (config["sample_rate_hertz"], config["hop_length_samples"]) == (44100, 1024)


def test_rate_and_hop_are_read_from_strings() -> None:
    told = arguments(sr="22050", hop_length="512")
    config, _ = from_published(checkpoint(lstm(), told), STATISTICS)
    assert (config["sample_rate_hertz"], config["hop_length_samples"]) == (22050, 512)


def test_a_feature_that_never_changed_does_not_divide_by_nothing() -> None:
    statistics = {"mean": np.full(FEATURES, 3.0), "std": np.zeros(FEATURES)}
    config, state = from_published(checkpoint(lstm(), arguments()), statistics)
    window = np.full((5, FEATURES), 3.0, np.float32)
    assert np.isfinite(load_predictor(config, save(state)).predict(window, 4)).all()


def test_an_encoder_decoder_without_position_codes_predicts() -> None:
    network = LSTMEncoderDecoder(NetworkShape(FEATURES, hidden_size=8, num_layers=1))
    saved = checkpoint(network)
    saved["state_dict"]["pos_encoder.pe"] = torch.zeros(5000, 1, 0)
    told = arguments(
        selected_model="LSTMEncoderDecoderModel",
        dim_pos_encoding="-1",
        forecast_size="3",
        window_size="8",
    )
    config, state = from_published(saved, STATISTICS, told)
    predictor = load_predictor(config, save(state))
    assert predictor.window_frames == 5
    assert predictor.predict(np.zeros((5, FEATURES), np.float32), 7).shape == (7, FEATURES)


def test_the_ignored_flag_for_encoder_layers_stays_ignored() -> None:
    config, _ = from_published(checkpoint(lstm(), arguments(num_encoder_layers=4)), STATISTICS)
    assert config["shape"]["num_encoder_layers"] is None


@pytest.mark.parametrize(
    ("changes", "culprit"),
    [
        ({"selected_model": "GRU"}, "selected_model"),
        ({"selected_model": "ProbabilisticTransformer"}, "selected_model"),
        ({"descriptor_size": "many"}, "descriptor_size"),
        ({"descriptor_size": "5"}, "feature_names"),
        ({"window_size": "3", "forecast_size": "3"}, "window_size"),
        ({"hidden_size": None}, "hidden_size"),
    ],
)
def test_hyper_parameters_that_cannot_be_are_named(changes: dict[str, Any], culprit: str) -> None:
    with pytest.raises(InvalidInputError) as raised:
        from_published(checkpoint(lstm(), arguments()), STATISTICS, arguments(**changes))
    assert raised.value.culprit == culprit


def test_other_features_can_be_named() -> None:
    network = LSTM(NetworkShape(2, hidden_size=8, num_layers=1))
    config, _ = from_published(
        checkpoint(network, arguments(descriptor_size=2)),
        {"mean": [0, 0], "std": [1, 1]},
        feature_names=("spectral_centroid", "zero_crossing_rate"),
    )
    assert config["feature_names"] == ["spectral_centroid", "zero_crossing_rate"]


def test_weights_that_do_not_fit_their_config_are_refused() -> None:
    config, state = from_published(checkpoint(lstm(), arguments()), STATISTICS)
    del state["linear.bias"]
    with pytest.raises(CorruptObjectError, match=r"linear\.bias"):
        load_predictor(config, save(state))
    with pytest.raises(CorruptObjectError, match="weights do not fit"):
        load_predictor(config, b"not safetensors")


@pytest.mark.parametrize("key", ["shape", "window_frames", "means", "feature_names"])
def test_a_config_without_what_it_needs_is_named(key: str) -> None:
    config, _ = from_published(checkpoint(lstm(), arguments()), STATISTICS)
    del config[key]
    with pytest.raises(CorruptObjectError) as raised:
        PredictorConfig.from_json(config)
    assert raised.value.culprit == key


def test_a_config_of_an_unknown_architecture_is_refused() -> None:
    config, state = from_published(checkpoint(lstm(), arguments()), STATISTICS)
    with pytest.raises(CorruptObjectError, match="'GRU', not one of LSTM"):
        load_predictor(config | {"architecture": "GRU"}, save(state))


def test_a_config_whose_statistics_do_not_fit_is_refused() -> None:
    config, _ = from_published(checkpoint(lstm(), arguments()), STATISTICS)
    with pytest.raises(CorruptObjectError, match="means has 1 entries for 39 features"):
        PredictorConfig.from_json(config | {"means": [0.0]})


def test_a_config_survives_json_and_keys_of_the_store() -> None:
    config, _ = from_published(checkpoint(lstm(), arguments()), STATISTICS)
    stored = config | {"weights_sha256": "0" * 64, "weights_size_bytes": 5}
    assert PredictorConfig.from_json(stored).to_json() == config
