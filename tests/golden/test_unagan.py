"""UNAGAN answers as the published networks do, on the same weights and inputs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from services.synth.unagan.discriminator import Discriminator
from services.synth.unagan.encoder import Encoder
from services.synth.unagan.generator import Unagan, load_generator
from services.synth.unagan.published import critic_state, import_generator

GOLDEN = Path(__file__).parent / "unagan"
TOLERANCE = 1e-4


def golden(name: str) -> torch.Tensor:
    return torch.from_numpy(np.load(GOLDEN / f"{name}.npy"))


def checkpoint(name: str) -> dict[str, Any]:
    return torch.load(GOLDEN / f"params.{name}.torch", weights_only=True)


def config() -> dict[str, Any]:
    return json.loads((GOLDEN / "config.json").read_text())


def imported(name: str, known: dict[str, Any] | None) -> Unagan:
    mean, std = np.load(GOLDEN / "mean.mel.npy"), np.load(GOLDEN / "std.mel.npy")
    weights, written = import_generator(checkpoint(name), mean, std, known)
    # Through JSON, as the store keeps it.
    return load_generator(json.loads(json.dumps(written)), weights)


def zero_states(model: Unagan, batch: int) -> list[torch.Tensor]:
    shape = (2, batch, model.settings.middle_dim)
    return [torch.zeros(shape) for _ in range(model.generator.recurrent_blocks)]


def assert_agrees(ours: torch.Tensor, expected: torch.Tensor) -> None:
    assert ours.shape == expected.shape
    error = (ours - expected).abs().max() / expected.abs().max()
    assert error <= TOLERANCE


@pytest.mark.parametrize("known", [config(), None], ids=["with config", "inferred"])
def test_the_hierarchical_generator_answers_as_published(known: dict[str, Any] | None) -> None:
    model = imported("Generator.latest", known)
    z = golden("z")
    with torch.no_grad():
        assert_agrees(
            model.generator(z, zero_states(model, len(z))), golden("hierarchical_zero_hidden")
        )


@pytest.mark.parametrize("known", [config(), None], ids=["with config", "inferred"])
def test_the_nonhierarchical_generator_answers_as_published(known: dict[str, Any] | None) -> None:
    model = imported("Generator.nonhierarchical", known)
    z = golden("z_nonhierarchical")
    with torch.no_grad():
        assert_agrees(
            model.generator(z, zero_states(model, len(z))), golden("nonhierarchical_zero_hidden")
        )


def test_drawn_states_are_those_of_the_published_draw() -> None:
    model = imported("Generator.latest", config())
    states = model.generator.draw_states(1, torch.Generator().manual_seed(5))
    with torch.no_grad():
        assert_agrees(model.generator(golden("z")[:1], states), golden("hierarchical_seed5"))


def test_discriminator_and_encoder_answer_as_published() -> None:
    known = config()
    mel = golden("mel_in")
    discriminator = Discriminator(known["feat_dim"], known["middle_dim"])
    encoder = Encoder(
        known["feat_dim"], known["z_dim"], known["z_scale_factors"], known["middle_dim"]
    )
    for network, name, expected in (
        (discriminator, "Discriminator.latest", "discriminator_out"),
        (encoder, "Encoder.latest", "encoder_out"),
    ):
        network.load_state_dict(critic_state(checkpoint(name)["state_dict.model"]))
        with torch.no_grad():
            assert_agrees(network.eval()(mel), golden(expected))


def test_an_imported_model_keeps_the_published_statistics() -> None:
    model = imported("Generator.latest", None)
    for ours, name in ((model.mean, "mean.mel"), (model.std, "std.mel")):
        expected: NDArray[np.float64] = np.load(GOLDEN / f"{name}.npy")
        np.testing.assert_array_equal(ours.numpy(), expected.astype(np.float32))
