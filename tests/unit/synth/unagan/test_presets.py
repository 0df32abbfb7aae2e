from dataclasses import replace

import pytest

from services.errors import InvalidInputError, NotFoundError
from services.learning.precision import Precision
from services.synth.unagan.generator import UnaganSettings
from services.synth.unagan.presets import PRESETS, preset
from services.synth.unagan.training import UnaganTrainer
from tests.unit.synth.unagan.trainers import MEL, SMALL, clips


def test_published_presets_are_as_published() -> None:
    script, notebook = preset("published-script"), preset("published-notebook")

    assert (script.learning_rate, script.batch_size) == (1e-4, 5)
    assert (notebook.learning_rate, notebook.batch_size) == (1e-3, 10)
    for training in (script, notebook):
        assert training.networks == UnaganSettings()
        assert (training.gamma, training.lambda_k, training.init_k) == (1.0, 0.01, 0.0)
        assert (training.lambda_cycle, training.max_gradient_norm) == (1.0, 3.0)
        assert (training.schedule, training.average_decay) == ("constant", 0.0)
        assert training.augmentation.is_off
        assert training.precision == Precision()
    assert script.segment_frames == 1728


@pytest.mark.parametrize("name", PRESETS)
def test_the_networks_of_every_preset_can_be_built_and_trained_on(name: str) -> None:
    settings = preset(name, MEL)

    training = UnaganTrainer(settings, clips(2, 0.2), device="cpu", seed=0)

    assert settings.networks.mel == MEL
    assert training.config()["training"]["planned_steps"] == settings.steps
    assert settings.validation_figure in {"convergence", "mel_distance"}


def test_presets_say_how_long_they_train_unless_the_published_system_did_not() -> None:
    endless = {name for name, settings in PRESETS.items() if settings.steps is None}

    assert endless == {"published-script", "published-notebook"}


def test_an_unknown_preset_is_refused_by_naming_the_known() -> None:
    with pytest.raises(NotFoundError, match="published-script"):
        preset("loud")


def test_crops_are_whole_columns_of_noise() -> None:
    assert replace(SMALL, segment_seconds=1e-6).segment_frames == 4


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_size", 0),
        ("learning_rate", 0.0),
        ("gamma", -1.0),
        ("init_k", 1.5),
        ("average_decay", 1.0),
        ("learning_rate_floor", -0.1),
        ("cycle", True),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(name: str, value: float) -> None:
    plain = replace(SMALL, cycle=False, networks=replace(SMALL.networks, variant="nonhierarchical"))
    with pytest.raises(InvalidInputError) as refused:
        replace(plain, **{name: value})
    assert refused.value.culprit == name


def test_a_cosine_without_an_end_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="give steps"):
        replace(SMALL, schedule="cosine")
