"""The presets: the published values as they are, and our own for each architecture."""

from dataclasses import replace

import pytest
import torch

from services.errors import NotFoundError
from services.predictor.loading import ARCHITECTURES
from services.predictor.training.presets import OWN, PUBLISHED, preset
from services.predictor.training.settings import ARCHITECTURE_NAMES
from services.predictor.training.trainer import PredictorTrainer
from tests.unit.predictor.music import tracks

OWN_PRESETS = [(name, architecture) for name in OWN for architecture in OWN[name]]


def test_the_script_preset_holds_the_published_defaults() -> None:
    script = preset("published-script")
    assert (script.window_size, script.forecast_size, script.batch_size) == (10, 3, 16)
    assert (script.hidden_size, script.num_layers, script.epochs) == (100, 3, 1000)
    assert (script.nhead, script.dim_feedforward, script.dim_pos_encoding) == (5, 128, 26)
    assert (script.learning_rate, script.schedule) == (1e-4, "published")


def test_the_notebook_preset_holds_the_published_defaults() -> None:
    notebook = preset("published-notebook")
    assert (notebook.window_size, notebook.forecast_size, notebook.batch_size) == (500, 500, 64)
    assert (notebook.hidden_size, notebook.epochs) == (200, 3000)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_presets_have_nothing_of_ours(name: str) -> None:
    """No averages, residual targets, computed deltas, clipping, noise, warm-up or early end."""
    published = preset(name)
    assert (published.deltas, published.anchor, published.rollout_frames) == (
        "predicted",
        "none",
        1,
    )
    assert not published.average_decay
    assert not published.gradient_clip
    assert not published.input_noise
    assert not published.warmup_steps
    assert not published.patience
    assert published.steps is None


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_presets_are_the_same_for_all_architectures(name: str) -> None:
    for architecture in ARCHITECTURE_NAMES:
        chosen = preset(name, architecture)
        assert chosen == replace(preset(name), selected_model=architecture)


@pytest.mark.parametrize("name", OWN)
def test_our_presets_have_values_for_every_architecture(name: str) -> None:
    assert set(OWN[name]) == set(ARCHITECTURE_NAMES)
    for architecture in ARCHITECTURE_NAMES:
        assert preset(name, architecture).selected_model == architecture


def test_without_an_architecture_it_is_the_lstm() -> None:
    assert {preset(name).selected_model for name in (*PUBLISHED, *OWN)} == {"LSTM"}


def test_an_unknown_preset_is_named_with_those_there_are() -> None:
    with pytest.raises(NotFoundError, match="'demo'; there are published-script"):
        preset("demo")


def test_an_architecture_without_values_is_named_with_those_there_are() -> None:
    with pytest.raises(NotFoundError, match=r"no predictor 'GRU'.*; there are LSTM"):
        preset("standard", "GRU")


@pytest.mark.parametrize(("name", "architecture"), OWN_PRESETS)
def test_our_presets_choose_by_what_is_measured(name: str, architecture: str) -> None:
    measured = {ARCHITECTURES[architecture].loss_name, "free_run", "rollout_mse"}
    assert preset(name, architecture).validation_figure in measured


@pytest.mark.parametrize("architecture", ARCHITECTURE_NAMES)
def test_the_demonstration_learns_in_its_first_steps(architecture: str) -> None:
    """On the few windows that there are, measured without noise."""
    settings = replace(preset("demo-cpu", architecture), warmup_steps=0)
    trains = PredictorTrainer(settings, tracks(3, 125), seed=1)
    frames, counts = trains._training.at(trains._training.starts)

    @torch.inference_mode()
    def loss() -> float:
        network = trains.network.eval()
        return float(network.loss(frames, frames, counts, settings.window_size))

    trains.step()
    before = loss()
    for _ in range(8):
        trains.step()
    assert loss() < before
