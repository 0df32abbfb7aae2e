"""What a predictor's order becomes: the preset of its architecture, its length, and overrides."""

from pathlib import Path
from typing import Any

import pytest

from services.cli.training.begin import ordered_settings
from services.cli.training.order import Order
from services.cli.training.settings import settings_of
from services.errors import InvalidInputError, NotFoundError
from services.predictor.training.presets import preset
from services.predictor.training.settings import ARCHITECTURE_NAMES, PredictorTraining


def ordered(**changes: Any) -> Any:
    values: dict[str, Any] = {"preset": "standard", "seed": 0} | changes
    return ordered_settings(Order("predictor", Path("music"), **values))


def test_the_chosen_architecture_has_its_values_of_the_preset() -> None:
    for architecture in ("LSTM", "TransformerModel", "ProbabilisticTransformer"):
        assert ordered(overrides={"selected_model": architecture}) == preset(
            "standard", architecture
        )
    assert ordered() == preset("standard", "LSTM")


def test_a_flag_goes_before_the_preset_of_its_architecture() -> None:
    settings = ordered(overrides={"selected_model": "TransformerModel", "window_size": "77"})
    assert settings.window_size == 77
    assert settings.forecast_size == preset("standard", "TransformerModel").forecast_size


def test_steps_of_the_order_are_those_of_the_settings() -> None:
    assert ordered(steps=5).steps == 5
    assert ordered(preset="published-script", steps=5).steps == 5


def test_epochs_say_how_long_where_no_steps_do() -> None:
    settings = ordered(preset="published-script", overrides={"epochs": "2"})
    assert (settings.steps, settings.epochs) == (None, 2)


def test_precision_is_chosen_as_for_the_others() -> None:
    assert ordered(overrides={"precision.compute": "bf16"}).precision.compute == "bf16"


def test_an_unknown_architecture_is_named_with_those_there_are() -> None:
    with pytest.raises(NotFoundError, match=r"no predictor 'GRU'.*; there are LSTM"):
        ordered(overrides={"selected_model": "GRU"})
    with pytest.raises(InvalidInputError, match="selected_model is 'GRU'"):
        ordered(preset="published-script", overrides={"selected_model": "GRU"})


def test_the_documentation_of_the_architecture_names_them_all() -> None:
    [told] = [
        each.documentation
        for each in settings_of(PredictorTraining)
        if each.path == "selected_model"
    ]
    assert all(name in told for name in ARCHITECTURE_NAMES)
