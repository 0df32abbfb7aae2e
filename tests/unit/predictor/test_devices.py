"""Two processes with half the batch each, by gloo, are one process with the whole batch."""

from dataclasses import replace

import numpy as np
import pytest

from services.audio.track import DescriptorTrack
from services.learning.world import ALONE, World
from services.predictor.networks.anchor import LinearForecast
from services.predictor.networks.network import Anchor
from services.predictor.training.settings import PredictorTraining
from services.predictor.training.trainer import PredictorTrainer
from tests.unit.learning.processes import together

SETTINGS = PredictorTraining(
    window_size=6,
    forecast_size=3,
    hidden_size=8,
    num_layers=1,
    nhead=2,
    dim_feedforward=8,
    dim_pos_encoding=4,
    # The last batch of an epoch holds a single one of 39 windows.
    batch_size=19,
    learning_rate=1e-3,
    dropout=0.0,
    input_noise=0.1,
    gradient_clip=1.0,
    average_decay=0.9,
    outlier_deviations=2.0,
)
FORMS = ("LSTM", "LSTMEncoderDecoderModel", "TransformerModel")
ROLLED_OUT = {"LSTM": 2}
ANCHORED: dict[str, Anchor] = {"LSTMEncoderDecoderModel": "linear"}

Weights = np.ndarray  # type: ignore[type-arg]
Course = tuple[list[dict[str, float]], Weights, Weights]


def tracks() -> list[DescriptorTrack]:
    """Few windows, outliers among them, so that the shares count differently."""
    random = np.random.default_rng(0)
    return [
        DescriptorTrack(
            tuple(f"mfcc{i}" for i in range(4)),
            random.standard_normal((20, 4)).cumsum(axis=0).astype(np.float32),
            22050,
            512,
            f"{n}.wav",
        )
        for n in range(4)
    ]


def trainer(world: World, form: str) -> PredictorTrainer:
    settings = replace(
        SETTINGS,
        selected_model=form,
        rollout_frames=ROLLED_OUT.get(form, 1),
        anchor=ANCHORED.get(form, "none"),
    )
    return PredictorTrainer(settings, tracks(), seed=3, world=world)


def both(world: World) -> tuple[list[Course], Weights]:
    """Started once, for that is what takes the time."""
    return course(world), fitted(world)


@pytest.fixture(scope="module")
def two() -> list[tuple[list[Course], Weights]]:
    """What two processes have to tell."""
    return together(2, both)


def course(world: World) -> list[Course]:
    """Of each form: losses of little more than an epoch and figures, weights before and after."""
    courses = []
    for form in FORMS:
        training = trainer(world, form)
        start = _weights(training)
        steps = training.steps_per_epoch + 2
        losses = [
            {name: float(value) for name, value in training.step().items()} for _ in range(steps)
        ]
        courses.append(([*losses, training.validate()], start, _weights(training)))
    return courses


def fitted(world: World) -> Weights:
    """The anchor after a step, where each process would fit something else."""
    training = trainer(world, "LSTMEncoderDecoderModel")
    training._training._frames += world.rank
    training.step()
    anchor = training.kept.get_submodule("anchor")
    assert isinstance(anchor, LinearForecast)
    return np.concatenate([each.flatten().numpy() for each in anchor.state_dict().values()])


def _weights(training: PredictorTrainer) -> Weights:
    return np.concatenate([p.detach().flatten().numpy() for p in training.kept.parameters()])


def test_two_processes_with_half_the_batch_each_learn_what_one_does(
    two: list[tuple[list[Course], Weights]],
) -> None:
    """Losses within 1e-4, weights within a hundredth of the way that they went.

    The biases of attention's keys have a gradient of nothing but rounding, and Adam follows it.
    """
    courses = (each for each, _ in two)
    for alone, first, second in zip(course(ALONE), *courses, strict=True):
        for losses, shared, also in zip(alone[0], first[0], second[0], strict=True):
            assert shared == also
            for figures in (losses, shared):
                figures.pop("gradient_norm/network", None)
            assert shared == pytest.approx(losses, rel=1e-4, abs=1e-4)
        assert np.array_equal(first[2], second[2])
        way = np.linalg.norm(alone[2] - alone[1])
        assert np.linalg.norm(first[2] - alone[2]) < 0.01 * way


@pytest.mark.parametrize("form", FORMS)
def test_weights_that_are_drawn_are_those_of_one_process(form: str) -> None:
    assert trainer(World(1, 2), form).weights() == trainer(ALONE, form).weights()


def test_all_processes_have_the_anchor_that_the_first_one_fitted(
    two: list[tuple[list[Course], Weights]],
) -> None:
    (_, first), (_, second) = two
    assert np.array_equal(first, second)
    assert np.array_equal(first, fitted(ALONE))
