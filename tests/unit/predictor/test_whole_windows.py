"""What a network is asked with: the window as it is, all of it, and nothing beside it."""

# ruff: noqa: ARG002 - the network needs nothing but its window

import numpy as np
import pytest
import torch
from torch import Tensor

from services.audio.track import DescriptorTrack
from services.predictor.config import PredictorConfig
from services.predictor.continuation import continue_track
from services.predictor.loading import ARCHITECTURES, load_predictor
from services.predictor.network_predictor import NetworkPredictor
from services.predictor.networks.network import MOST_LIKELY, Chance, Network, NetworkShape
from services.predictor.port import Checkpoint
from services.predictor.training.settings import PredictorTraining
from services.predictor.training.trainer import PredictorTrainer

NAMES = ("mfcc0", "mfcc1")
WINDOW = 6


class Echo(Network):
    """Says what it heard again, and remembers how much that was."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.heard: list[tuple[int, ...]] = []

    @staticmethod
    def frames_ahead(forecast_frames: int) -> int:
        return forecast_frames

    def taught(self, sequences: Tensor, window_frames: int) -> Tensor:
        return sequences[:, window_frames:]

    def continued(
        self,
        window: Tensor,
        steps: int,
        forecast_frames: int,
        rollout: str,
        stop: Checkpoint,
        *,
        chance: Chance = MOST_LIKELY,
    ) -> Tensor:
        self.heard.append(tuple(window.shape))
        return window[:, :steps]


def echo() -> tuple[NetworkPredictor, Echo]:
    network = Echo()
    config = PredictorConfig(
        architecture="LSTM",
        shape=NetworkShape(feature_count=2, hidden_size=1, num_layers=1),
        window_frames=WINDOW,
        forecast_frames=3,
        feature_names=NAMES,
        means=(1.0, -1.0),
        standard_deviations=(2.0, 0.0),
        sample_rate_hertz=44_100,
        hop_length_samples=1024,
        training={},
    )
    return NetworkPredictor(config, network), network


def track(frames: int, seed: int = 0) -> DescriptorTrack:
    values = np.random.default_rng(seed).normal(0, 1, (frames, 2)).cumsum(axis=0)
    return DescriptorTrack(NAMES, values.astype(np.float32), 44_100, 1024, "wren.wav")


def test_outliers_in_a_window_stay_where_they_are() -> None:
    predictor, network = echo()
    spoilt = track(WINDOW)
    spoilt.values[2] = 1e4
    told = continue_track(predictor, spoilt, WINDOW)
    np.testing.assert_allclose(told.values, spoilt.values, rtol=1e-5, atol=1e-4)
    assert network.heard == [(1, WINDOW, 2)]


def test_a_window_is_the_last_frames_and_holds_no_room_for_the_forecast() -> None:
    predictor, network = echo()
    long = track(50)
    told = continue_track(predictor, long, 3)
    np.testing.assert_allclose(told.values, long.values[-WINDOW:][:3], rtol=1e-5, atol=1e-4)
    assert network.heard == [(1, WINDOW, 2)]


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_what_is_trained_looks_at_as_many_frames_as_it_was_told_to(architecture: str) -> None:
    settings = PredictorTraining(
        selected_model=architecture,
        window_size=WINDOW,
        forecast_size=3,
        hidden_size=4,
        num_layers=1,
        nhead=1,
        dim_feedforward=8,
        dim_pos_encoding=2,
    )
    trainer = PredictorTrainer(settings, [track(60), track(60, 1)], seed=1)
    predictor = load_predictor(trainer.config(), trainer.weights())
    assert predictor.window_frames == WINDOW
    short = continue_track(predictor, track(50).last(WINDOW), 7)
    long = continue_track(predictor, track(50), 7)
    np.testing.assert_array_equal(short.values, long.values)


def test_all_of_many_windows_are_continued_not_those_of_a_first_batch() -> None:
    predictor, network = echo()
    windows = np.stack([track(WINDOW, seed).values for seed in range(130)])
    told = predictor.predict_many(windows, 2, seeds=[0] * len(windows))
    np.testing.assert_allclose(told, windows[:, :2], rtol=1e-5, atol=1e-4)
    assert sum(shape[0] for shape in network.heard) == len(windows)
