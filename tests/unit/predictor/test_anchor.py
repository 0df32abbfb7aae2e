"""What predictions are told as changes from."""

import numpy as np
import pytest
import torch
from torch import Tensor

from services.predictor.loading import ARCHITECTURES
from services.predictor.networks.anchor import (
    HORIZONS,
    RIDGE,
    LinearForecast,
    LinearStep,
    padded,
)
from services.predictor.networks.network import Anchor, NetworkShape
from services.predictor.port import never_stop

SIZES = {"hidden_size": 8, "num_layers": 1, "nhead": 2, "dim_feedforward": 8, "dim_pos_encoding": 4}
ONE_STEP = ("LSTM", "TransformerEncoderOnlyModel")
ALL_AT_ONCE = ("LSTMEncoderDecoderModel", "TransformerModel")


def spirals(batch: int, frames: int, growth: float = 0.98) -> Tensor:
    """Two features that turn and shrink, or grow, each sequence from a start of its own."""
    random = np.random.default_rng(1)
    points = random.standard_normal(batch) + 1j * random.standard_normal(batch)
    path = points[:, None] * (growth * np.exp(0.2j)) ** np.arange(frames)
    return torch.from_numpy(np.stack((path.real, path.imag), axis=2)).float()


def silenced(architecture: str, anchor: Anchor) -> torch.nn.Module:
    """A network that adds nothing to its anchor."""
    torch.manual_seed(2)
    network = ARCHITECTURES[architecture](NetworkShape(2, anchor=anchor, **SIZES)).eval()
    last = network.decoder.norm if architecture == "TransformerModel" else network.linear
    with torch.no_grad():
        last.weight.zero_()
        last.bias.zero_()
    return network


@torch.inference_mode()
def continued(network: torch.nn.Module, window: Tensor, steps: int) -> Tensor:
    return network.continued(window, steps, steps, "sliding", never_stop)  # type: ignore[operator,no-any-return]


@pytest.mark.parametrize("architecture", [*ONE_STEP, *ALL_AT_ONCE])
def test_a_network_that_adds_nothing_repeats_the_last_frame(architecture: str) -> None:
    window = spirals(3, 20)
    told = continued(silenced(architecture, "last"), window, 5)
    torch.testing.assert_close(told, window[:, -1:].expand(-1, 5, -1))


@pytest.mark.parametrize("architecture", ALL_AT_ONCE)
def test_a_network_that_adds_nothing_repeats_the_mean(architecture: str) -> None:
    window = spirals(3, 20)
    told = continued(silenced(architecture, "mean"), window, 5)
    torch.testing.assert_close(told, window.mean(dim=1, keepdim=True).expand(-1, 5, -1))


@pytest.mark.parametrize("architecture", [*ONE_STEP, *ALL_AT_ONCE])
def test_with_a_fitted_anchor_the_untrained_network_knows_what_is_linear(architecture: str) -> None:
    """Until its last layer has learned, it adds nothing."""
    sequences = spirals(200, 60)
    torch.manual_seed(2)
    network = ARCHITECTURES[architecture](NetworkShape(2, anchor="linear", **SIZES)).eval()
    assert isinstance(network.anchor, LinearForecast | LinearStep)
    network.anchor.fit([(sequences, torch.ones(sequences.shape[:2]))], 40)
    told = continued(network, sequences[:, :40], 20)
    assert (told - sequences[:, 40:]).abs().max() < 0.1
    assert (told - sequences[:, 39:40]).abs().max() > 0.5


def test_a_linear_forecast_adds_what_an_autoregression_misses() -> None:
    """Sounds that return to a level of their own, which an autoregression forgets."""
    random = torch.Generator().manual_seed(4)
    levels = torch.randn(500, 1, 1, generator=random)
    sequences = levels + torch.randn(500, 200, 1, generator=random)
    anchor = LinearForecast(1)
    anchor.fit([(part, torch.ones(part.shape[:2])) for part in sequences.split(100)], 128)
    window, future = sequences[:, :128], sequences[:, 128:]
    whole = (anchor(window, 64) - levels).square().mean(dim=(0, 2))
    alone = (anchor._iterated(window, 64) - levels).square().mean(dim=(0, 2))
    assert future.shape[1] >= 64
    assert whole[31] < 0.5 * alone[31]
    assert whole[15] < 0.03


@pytest.mark.parametrize("kind", [LinearForecast, LinearStep])
def test_an_anchor_fitted_to_growing_tracks_does_not_explode(
    kind: type[LinearForecast] | type[LinearStep],
) -> None:
    """In 500 frames; spirals that grow by 3% a frame would by a factor of 10^6."""
    sequences = spirals(200, 60, growth=1.03)
    anchor = kind(2)
    anchor.fit([(sequences, torch.ones(sequences.shape[:2]))], 40)
    heard = sequences[:, :40]
    largest = 10 * sequences.abs().max()
    if isinstance(anchor, LinearForecast):
        assert anchor(heard, 500).abs().max() < largest
        return
    for _ in range(500):
        heard = torch.cat((heard, anchor(heard[:, -20:])[:, -1:]), dim=1)
    assert heard.abs().max() < largest


def test_what_is_stable_is_fitted_by_least_squares_alone() -> None:
    sequences = spirals(200, 60)
    step = LinearStep(2)
    step.fit([(sequences, torch.ones(sequences.shape[:2]))], 40)
    given = padded(sequences[:, :40])[:, -23:].unfold(1, 16, 1).transpose(2, 3).flatten(2)
    given = torch.cat((given, torch.ones_like(given[..., :1])), dim=2).flatten(0, 1).double()
    ridge = RIDGE * (given**2).sum(dim=0).mean() * torch.eye(33)
    wanted = sequences[:, 33:41].flatten(0, 1).double()
    solved = torch.linalg.solve(given.T @ given + ridge, given.T @ wanted)
    torch.testing.assert_close(step.linear.weight.double(), solved[:-1].T, rtol=0, atol=2e-4)


def test_between_its_horizons_a_linear_forecast_adds_straight_lines() -> None:
    torch.manual_seed(3)
    anchor = LinearForecast(1)
    torch.nn.init.normal_(anchor.weight)
    window = spirals(3, 40)[:, :, :1]
    added = anchor(window, 20) - anchor._iterated(window, 20)
    assert HORIZONS[2:4] == (8, 16)
    torch.testing.assert_close(added[:, 9], 0.75 * added[:, 7] + 0.25 * added[:, 15])


def test_horizons_beyond_what_was_fitted_are_told_as_the_furthest() -> None:
    sequences = spirals(100, 20)
    anchor = LinearForecast(2)
    anchor.fit([(sequences, torch.ones(100, 20))], 15)
    assert (anchor.weight[2:] == anchor.weight[2]).all()
    assert anchor(sequences[:, :15], 600).isfinite().all()


@pytest.mark.parametrize("kind", [LinearForecast, LinearStep])
def test_outliers_do_not_fit(kind: type[LinearForecast] | type[LinearStep]) -> None:
    sequences, counts = spirals(100, 30), torch.ones(100, 30)
    clean, spoilt = kind(2), kind(2)
    clean.fit([(sequences[:90], counts[:90])], 25)
    sequences = sequences.clone()
    sequences[90:, 25:], counts[90:, 25:] = 1e6, 0
    spoilt.fit([(sequences, counts)], 25)
    for name, weight in clean.state_dict().items():
        torch.testing.assert_close(spoilt.state_dict()[name], weight, atol=0.02, rtol=0.02)


@pytest.mark.parametrize("frames", [1, 3, 15, 16, 40])
def test_windows_of_any_length_have_an_anchor(frames: int) -> None:
    window = spirals(2, frames)
    torch.testing.assert_close(LinearForecast(2)(window, 3), window[:, -1:].expand(-1, 3, -1))
    torch.testing.assert_close(LinearStep(2)(window), window)


def test_a_linear_step_hears_what_was_before() -> None:
    step = LinearStep(2)
    torch.nn.init.normal_(step.linear.weight)
    frames = spirals(2, 40)
    torch.testing.assert_close(step(frames[:, 20:], frames[:, 5:20]), step(frames)[:, 20:])
