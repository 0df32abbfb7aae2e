from dataclasses import replace
from typing import Any

import pytest
import torch

from services.errors import SettingsMismatchError
from services.learning.supply import Supply
from services.learning.world import World
from services.synth.unagan.training import UnaganTrainer
from tests.unit.learning.processes import together
from tests.unit.synth.unagan.trainers import SMALL, trainer

# Halves of four, a k that moves fast enough to be seen, and gradients that nothing clips.
PAIR = replace(SMALL, batch_size=4, lambda_k=2.0, init_k=0.5, max_gradient_norm=1e9)


def half(items: range) -> UnaganTrainer:
    """A trainer, alone, of these items of the batch."""
    training = trainer(replace(PAIR, batch_size=2))
    batches = replace(training._batches, items=items)
    training._supply = Supply(batches.make, training.device)
    return training


def train(world: World) -> dict[str, Any]:
    training = trainer(PAIR, world=world)
    batch = training._batches.make(0)
    first = {name: float(loss) for name, loss in training.step().items()}
    second = {name: float(loss) for name, loss in training.step().items()}
    norms = {
        name: buffer.tolist()
        for name, buffer in training.discriminator.named_buffers()
        if "running_mean" in name
    }
    return {
        "crops": batch.real.tolist(),
        "noise": batch.z.tolist(),
        "losses": [first, second],
        "weights": training.weights(),
        "critic": [parameter.tolist() for parameter in training.discriminator.parameters()],
        "batch norms": norms,
    }


def test_two_devices_learn_one_network_from_their_halves_of_one_batch() -> None:
    answers = together(2, train)
    first, second = answers
    whole = trainer(PAIR)._batches.make(0)

    assert first["crops"] + second["crops"] == whole.real.tolist()
    assert first["noise"] + second["noise"] == whole.z.tolist()
    # One generator, one discriminator and one k, though each normalised by its own half.
    assert first["weights"] == second["weights"]
    assert first["critic"] == second["critic"]
    assert first["losses"] == second["losses"]
    assert first["batch norms"] != second["batch norms"]

    # What a device does with its half alone: together they are the mean of it.
    halves = [half(range(2)), half(range(2, 4))]
    alone = [each.step() for each in halves]
    for name in ("generator", "mel_cycle", "noise_cycle", "real", "generated"):
        mean = (float(alone[0][name]) + float(alone[1][name])) / 2
        assert first["losses"][0][name] == pytest.approx(mean, rel=1e-5)
    balance = PAIR.gamma * first["losses"][0]["real"] - first["losses"][0]["generated"]
    k = min(max(PAIR.init_k + PAIR.lambda_k * balance, 0.0), 1.0)
    assert first["losses"][0]["k"] == pytest.approx(k, rel=1e-5)
    assert 0 < k < 1


def test_gradients_of_two_devices_are_averaged() -> None:
    both = together(2, gradients)
    halves = [half(range(2)), half(range(2, 4))]
    alone = []
    for each in halves:
        each.step()
        alone.append(gradients_of(each.discriminator))

    assert both[0] == both[1]
    mean = (torch.tensor(alone[0]) + torch.tensor(alone[1])) / 2
    torch.testing.assert_close(torch.tensor(both[0]), mean, rtol=1e-3, atol=1e-5)


def gradients(world: World) -> list[float]:
    training = trainer(PAIR, world=world)
    training.step()
    return gradients_of(training.discriminator)


def gradients_of(network: torch.nn.Module) -> list[float]:
    found = [p.grad.flatten() for p in network.parameters() if p.grad is not None]
    whole: list[float] = torch.cat(found).tolist()
    return whole


def test_a_batch_that_does_not_divide_among_the_devices_is_refused() -> None:
    with pytest.raises(SettingsMismatchError, match="batch of 3"):
        trainer(SMALL, world=World(0, 2))
