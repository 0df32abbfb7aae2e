"""The four networks: what they see, how far they go, and what they go on with."""

import numpy as np
import pytest
import torch
from torch import Tensor

from services.errors import CancelledError, InvalidInputError
from services.predictor.loading import ARCHITECTURES
from services.predictor.networks.lstm_encoder_decoder import LSTMEncoderDecoder
from services.predictor.networks.network import Network, NetworkShape
from services.predictor.networks.position import position_codes
from services.predictor.networks.transformer_encoder_only import TransformerEncoderOnly
from services.predictor.port import never_stop

FEATURES = 6
WINDOW = 8
FORECAST = 4
SHAPE = NetworkShape(
    feature_count=FEATURES,
    hidden_size=12,
    num_layers=2,
    nhead=2,
    dim_feedforward=16,
    dropout=0.5,
    dim_pos_encoding=4,
)
WITHOUT_CODES = NetworkShape(
    feature_count=FEATURES, hidden_size=12, num_layers=2, nhead=2, dim_feedforward=16
)
ALL = sorted(ARCHITECTURES)
ALL_AT_ONCE = ("LSTMEncoderDecoderModel", "TransformerModel")


def network(architecture: str, shape: NetworkShape = SHAPE) -> Network:
    torch.manual_seed(3)
    return ARCHITECTURES[architecture](shape).eval()


def windows(frames: int = WINDOW, batch: int = 2) -> Tensor:
    return torch.randn(batch, frames, FEATURES, generator=torch.Generator().manual_seed(5))


@torch.inference_mode()
def continued(model: Network, window: Tensor, steps: int) -> Tensor:
    return model.continued(window, steps, FORECAST, "sliding", never_stop)


@pytest.mark.parametrize("architecture", ALL)
@pytest.mark.parametrize("steps", [1, FORECAST - 1, FORECAST, FORECAST + 1, 3 * FORECAST + 2])
def test_every_horizon_gets_exactly_its_frames(architecture: str, steps: int) -> None:
    answer = continued(network(architecture), windows(), steps)
    assert answer.shape == (2, steps, FEATURES)
    assert answer.isfinite().all()


@pytest.mark.parametrize("architecture", ALL)
def test_a_longer_horizon_begins_like_a_shorter_one(architecture: str) -> None:
    model = network(architecture)
    longer = continued(model, windows(), 11)
    for steps in (1, 3, 4, 7):
        torch.testing.assert_close(continued(model, windows(), steps), longer[:, :steps])


@pytest.mark.parametrize("architecture", ALL)
def test_networks_work_without_position_codes(architecture: str) -> None:
    assert continued(network(architecture, WITHOUT_CODES), windows(), 6).shape == (2, 6, FEATURES)


@pytest.mark.parametrize("architecture", ALL_AT_ONCE)
def test_forecasts_slide_on_from_what_was_forecast(architecture: str) -> None:
    model = network(architecture)
    first = continued(model, windows(), FORECAST)
    second = continued(model, torch.cat((windows(), first), dim=1)[:, -WINDOW:], FORECAST)
    answer = continued(model, windows(), 2 * FORECAST)
    torch.testing.assert_close(answer, torch.cat((first, second), dim=1))


def test_a_forecast_longer_than_the_window_slides_on() -> None:
    model = network("LSTMEncoderDecoderModel")
    answer = model.continued(windows(3), 3 * FORECAST, FORECAST, "sliding", never_stop)
    again = model.continued(answer[:, 5:8], FORECAST, FORECAST, "sliding", never_stop)
    torch.testing.assert_close(answer[:, 8:], again)


def test_the_encoder_only_window_slides() -> None:
    model = network("TransformerEncoderOnlyModel")
    answer = continued(model, windows(), 5)
    latest = torch.cat((windows(), answer), dim=1)[:, 4 : 4 + WINDOW]
    torch.testing.assert_close(continued(model, latest, 1)[:, 0], answer[:, 4])


def test_the_encoder_only_context_grows_as_published_if_told_to() -> None:
    model = network("TransformerEncoderOnlyModel")
    with torch.inference_mode():
        grown = model.continued(windows(), 5, 1, "published", never_stop)
        whole = torch.cat((windows(), grown), dim=1)[:, : WINDOW + 4]
        torch.testing.assert_close(model(whole)[:, -1], grown[:, 4])


def test_the_encoder_only_model_works_past_5000_frames() -> None:
    shape = NetworkShape(FEATURES, 1, 1, nhead=1, dim_feedforward=4, dim_pos_encoding=2)
    answer = continued(network("TransformerEncoderOnlyModel", shape), windows(5001, batch=1), 1)
    assert answer.shape == (1, 1, FEATURES)
    assert answer.isfinite().all()


def test_what_is_trained_here_cannot_see_the_frames_that_it_is_to_tell() -> None:
    model = network("TransformerEncoderOnlyModel")
    window = windows()
    changed = window.clone()
    changed[:, 5:] += 1
    torch.testing.assert_close(model(window)[:, :5], model(changed)[:, :5])


def test_the_published_mask_sees_them() -> None:
    assert isinstance(network("TransformerEncoderOnlyModel"), TransformerEncoderOnly)
    shape = NetworkShape(
        FEATURES, 12, 2, nhead=2, dim_feedforward=16, dim_pos_encoding=4, mask="published"
    )
    model = network("TransformerEncoderOnlyModel", shape)
    window = windows()
    changed = window.clone()
    changed[:, 5:] += 1
    assert (model(window)[:, :5] - model(changed)[:, :5]).abs().max() > 1e-3


def test_encoder_only_training_drops_whole_frames() -> None:
    model = network("TransformerEncoderOnlyModel").train()
    heard = []
    hook = model.frame_dropout.register_forward_hook(lambda _m, _i, out: heard.append(out))
    model(torch.ones(4, 50, FEATURES))
    hook.remove()
    silent = heard[0] == 0
    assert (silent.all(dim=2) == silent.any(dim=2)).all()
    assert 0.3 < silent.float().mean() < 0.7


@pytest.mark.parametrize("architecture", ALL)
def test_a_checkpoint_stops_the_work_between_steps(architecture: str) -> None:
    asked = 0

    def stop_at_the_third() -> None:
        nonlocal asked
        asked += 1
        if asked == 3:
            raise CancelledError("gone")

    with pytest.raises(CancelledError):
        network(architecture).continued(windows(), 100, FORECAST, "sliding", stop_at_the_third)


def test_heads_that_do_not_divide_the_width_are_named() -> None:
    shape = NetworkShape(FEATURES, 12, 1, nhead=3, dim_feedforward=8, dim_pos_encoding=4)
    for architecture in ("TransformerModel", "TransformerEncoderOnlyModel"):
        with pytest.raises(InvalidInputError, match="nhead is 3"):
            network(architecture, shape)


def test_the_decoder_is_told_positions_that_go_on_where_the_window_ended() -> None:
    model = network("LSTMEncoderDecoderModel")
    assert isinstance(model, LSTMEncoderDecoder)
    heard = []
    hook = model.decoder.register_forward_pre_hook(lambda _m, inputs: heard.append(inputs[0]))
    model(windows(), 3)
    hook.remove()
    assert (heard[0][:, :, 0] == 0).all()
    torch.testing.assert_close(
        heard[0][0, :, 1:], position_codes(WINDOW + 3, 4, windows())[WINDOW:]
    )


@pytest.mark.parametrize("dimensions", [0, 1, 2, 5, 26])
def test_position_codes_are_sines_and_cosines_of_any_width(dimensions: int) -> None:
    codes = position_codes(6001, dimensions, torch.zeros(1)).numpy()
    assert codes.shape == (6001, dimensions)
    for column in range(dimensions):
        wave = 10000.0 ** (-(column - column % 2) / dimensions)
        function = np.cos if column % 2 else np.sin
        np.testing.assert_allclose(codes[:, column], function(np.arange(6001) * wave), atol=2e-3)
