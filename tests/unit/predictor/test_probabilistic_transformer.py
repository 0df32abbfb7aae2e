"""The fifth predictor: its cache is exact, its chance follows from seeds, its density learns."""

import pytest
import torch
from torch import Tensor

from services.errors import CancelledError, InvalidInputError
from services.predictor.networks.network import MOST_LIKELY, Chance, NetworkShape
from services.predictor.networks.probabilistic_transformer import (
    INPUT_FRAMES,
    ProbabilisticTransformer,
)
from services.predictor.port import never_stop

FEATURES, ATTENTION, LAYERS = 5, 12, 2
SHAPE = NetworkShape(
    feature_count=FEATURES,
    hidden_size=16,
    num_layers=LAYERS,
    nhead=2,
    dim_feedforward=32,
    dropout=0.2,
    attention_frames=ATTENTION,
    mixtures=4,
)
REACH = LAYERS * (ATTENTION - 1) + INPUT_FRAMES
LENGTHS = (1, INPUT_FRAMES, REACH - 1, REACH + 40)
"""Windows shorter and longer than what one frame depends on."""


def network(dtype: torch.dtype = torch.float32) -> ProbabilisticTransformer:
    torch.manual_seed(3)
    model = ProbabilisticTransformer(SHAPE).to(dtype).eval()
    # As after training: what is heard matters to what is told.
    with torch.no_grad():
        model.density.weight.mul_(10)
    return model


def windows(frames: int, batch: int = 3, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(batch, frames, FEATURES, generator=generator, dtype=torch.float64).to(dtype)


@torch.inference_mode()
def continued(
    window: Tensor, steps: int, seeds: tuple[int, ...], temperature: float = 1.0
) -> Tensor:
    model = network(window.dtype)
    chance = Chance(seeds, temperature)
    return model.continued(window, steps, 1, "sliding", never_stop, chance=chance)


@pytest.mark.parametrize(
    ("frames", "temperature"), [(each, 1.0) for each in LENGTHS] + [(REACH, 0.0), (REACH, 0.7)]
)
def test_cached_sequences_are_those_computed_from_all_frames_anew(
    frames: int, temperature: float
) -> None:
    window = windows(frames, dtype=torch.float64)
    chance = Chance((1, 2, 3), temperature)
    with torch.inference_mode():
        anew = network(torch.float64).recomputed(window, REACH + 9, never_stop, chance=chance)
    cached = continued(window, REACH + 9, (1, 2, 3), temperature)
    torch.testing.assert_close(cached, anew, rtol=0, atol=1e-9)


@pytest.mark.parametrize("frames", LENGTHS)
@torch.inference_mode()
def test_cached_densities_are_those_of_teacher_forcing(frames: int) -> None:
    model, whole = network(), windows(frames + 2 * REACH)
    heard = model.hearing(whole[:, :frames], 2 * REACH)
    told = [heard.mixture.log_density(whole[:, frames])]
    for i in range(frames, frames + 2 * REACH - 1):
        heard.append(whole[:, i])
        told.append(heard.mixture.log_density(whole[:, i + 1]))
    expected = model.log_likelihood(whole, frames)
    torch.testing.assert_close(torch.stack(told, dim=1), expected, rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_a_frame_depends_on_as_many_frames_as_is_said() -> None:
    model, whole = network(torch.float64), windows(REACH + 1, dtype=torch.float64)
    assert model.receptive_frames == REACH
    plain = model.taught(whole, REACH + 1)[:, -1]
    for frame, reached in ((0, False), (1, True)):
        changed = whole.clone()
        changed[:, frame] += 1
        difference = (model.taught(changed, REACH + 1)[:, -1] - plain).abs().max()
        assert (difference > 0) == reached


@torch.inference_mode()
def test_no_frame_is_told_by_later_ones() -> None:
    whole = windows(40)
    changed = whole.clone()
    changed[:, 20:] += 1
    first, second = (network().taught(each, 40)[:, :20] for each in (whole, changed))
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_the_same_seed_is_the_same_sequence_and_another_is_another() -> None:
    window = windows(30, batch=1)
    assert torch.equal(continued(window, 20, (4,)), continued(window, 20, (4,)))
    assert (continued(window, 20, (4,)) - continued(window, 20, (5,))).abs().max() > 0.1


def test_temperature_0_does_not_ask_the_seed() -> None:
    window = windows(30, batch=1)
    assert torch.equal(continued(window, 20, (4,), 0.0), continued(window, 20, (5,), 0.0))


def test_a_sequence_is_the_same_alone_and_among_others() -> None:
    window = windows(30, dtype=torch.float64)
    together = continued(window, 40, (7, 8, 2**64 - 1))
    for i, seed in enumerate((7, 8, 2**64 - 1)):
        alone = continued(window[i : i + 1], 40, (seed,))
        torch.testing.assert_close(alone[0], together[i], rtol=0, atol=1e-9)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_longer_answer_begins_with_the_shorter_one(temperature: float) -> None:
    window = windows(30, dtype=torch.float64)
    longer = continued(window, 50, (1, 2, 3), temperature)
    for steps in (1, 2, 17, 49):
        shorter = continued(window, steps, (1, 2, 3), temperature)
        torch.testing.assert_close(shorter, longer[:, :steps], rtol=0, atol=1e-9)


def test_a_window_is_not_changed() -> None:
    window = windows(30)
    continued(window, 10, (1, 2, 3))
    assert torch.equal(window, windows(30))


def test_outliers_and_first_frames_count_nothing() -> None:
    model, whole = network(), windows(41)
    counts = torch.ones(3, 41)
    plain = model.loss(whole, whole, counts, 40)
    counts[:, 30] = 0
    masked = model.loss(whole, whole, counts, 40)
    torch.testing.assert_close(
        masked * (41 * 3 - 3 * INPUT_FRAMES - 3),
        plain * (41 * 3 - 3 * INPUT_FRAMES) + model.log_likelihood(whole, 30)[:, 0].sum(),
    )
    told = model.log_likelihood(whole, INPUT_FRAMES)
    torch.testing.assert_close(plain, -told.mean())


def test_sequences_are_heard_with_different_shares_of_the_noise_in_training_alone() -> None:
    model, whole = network(), windows(41)
    noisy = whole + torch.randn(whole.shape, generator=torch.Generator().manual_seed(6))
    heard = []
    hook = model.register_forward_pre_hook(lambda _m, inputs: heard.append(inputs[0]))
    for mode in (True, False):
        model.train(mode).loss(whole, noisy, torch.ones(3, 41), 40)
    hook.remove()
    shares = (heard[0] - whole[:, :40]) / (noisy - whole)[:, :40]
    assert shares.std(dim=(1, 2)).max() < 1e-3
    assert shares.mean(dim=(1, 2)).std() > 0.05
    torch.testing.assert_close(heard[1], noisy[:, :40])


def test_a_density_is_learned_that_beats_the_best_single_gaussian() -> None:
    generator = torch.Generator().manual_seed(1)
    signs = torch.randint(0, 2, (16, 33, 1), generator=generator) * 2.0 - 1
    frames = signs + 0.3 * torch.randn(16, 33, FEATURES, generator=generator)
    torch.manual_seed(0)
    model = ProbabilisticTransformer(SHAPE).eval()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    for _ in range(70):
        loss = model.loss(frames, frames, torch.ones(16, 33), 32)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    flat = frames.flatten(0, 1)
    gaussian = torch.distributions.MultivariateNormal(flat.mean(dim=0), flat.T.cov())
    assert float(loss.detach()) < float(-gaussian.log_prob(flat).mean()) - 0.5  # type: ignore[no-untyped-call]


def test_a_checkpoint_stops_the_work_between_steps() -> None:
    asked = 0

    def stop_at_the_third() -> None:
        nonlocal asked
        asked += 1
        if asked == 3:
            raise CancelledError("gone")

    with pytest.raises(CancelledError):
        network().continued(windows(8), 100, 1, "sliding", stop_at_the_third, chance=MOST_LIKELY)


def test_heads_that_do_not_divide_the_width_are_named() -> None:
    shape = NetworkShape(FEATURES, 18, 1, nhead=2, dim_feedforward=8)
    with pytest.raises(InvalidInputError, match="hidden_size is 18"):
        ProbabilisticTransformer(shape)
