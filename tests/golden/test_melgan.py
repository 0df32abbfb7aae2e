"""MelGAN answers what the published system answers on the same weights and sound."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from services.cli.foreign import load_arguments, load_checkpoint
from services.synth.mel import MelSettings, MelSpectrogram
from services.synth.melgan.generator import Generator, load_generator, save_generator
from services.synth.melgan.losses import (
    feature_matching,
    hinge_discriminator,
    hinge_generator,
    mel_reconstruction,
)
from services.synth.melgan.published import read_discriminator, read_generator

GOLDEN = Path(__file__).parent / "melgan"
SEGMENT_SAMPLES = 4096


def array(name: str) -> Tensor:
    return torch.from_numpy(np.load(GOLDEN / name))


def assert_agrees(answer: Tensor, golden: Tensor | NDArray[np.float32]) -> None:
    wanted = np.asarray(golden)
    assert answer.shape == wanted.shape
    assert np.abs(answer.detach().numpy() - wanted).max() <= 1e-4 * np.abs(wanted).max()


def published_generator(variant: str, file: str = "best_netG.pt") -> Generator:
    arguments = load_arguments(GOLDEN / variant / "args.yml")
    return read_generator(arguments, load_checkpoint(GOLDEN / variant / file))


@pytest.fixture(scope="module")
def step() -> Mapping[str, Any]:
    segment = array("audio.npy")[..., :SEGMENT_SAMPLES]
    mel = MelSpectrogram(MelSettings())
    discriminator = read_discriminator(
        load_arguments(GOLDEN / "gru" / "args.yml"), load_checkpoint(GOLDEN / "netD.pt")
    )
    with torch.no_grad():
        generated = published_generator("gru")(mel(segment))
        return {
            "real": discriminator(segment),
            "fake": discriminator(generated),
            "real_mel": mel(segment),
            "fake_mel": mel(generated),
        }


def test_mel_spectrogram_is_the_published_one() -> None:
    assert_agrees(MelSpectrogram(MelSettings())(array("audio.npy")), array("mel.npy"))


@pytest.mark.parametrize("variant", ["gru", "original"])
@pytest.mark.parametrize("file", ["best_netG.pt", "netG.pt"])
def test_generator_sounds_as_published_with_and_without_the_parallel_prefix(
    variant: str, file: str
) -> None:
    generator = published_generator(variant, file)
    assert generator.settings.variant == variant
    assert generator.settings.ngf == 2
    with torch.no_grad():
        assert_agrees(generator(array("mel.npy")), array(f"{variant}/generated.npy"))


@pytest.mark.parametrize("variant", ["gru", "original"])
def test_imported_weights_sound_as_published_after_storing_and_loading(variant: str) -> None:
    published = published_generator(variant)
    config = json.loads(json.dumps(published.settings.to_config()))
    generator, settings = load_generator(config, save_generator(published))
    assert settings == published.settings
    with torch.no_grad():
        assert_agrees(generator(array("mel.npy")), array(f"{variant}/generated.npy"))


def test_discriminator_layers_are_the_published_ones(step: Mapping[str, Any]) -> None:
    golden = np.load(GOLDEN / "discriminator_features.npz")
    layers = {
        f"scale{i}_layer{j}": layer
        for i, scale in enumerate(step["real"])
        for j, layer in enumerate(scale)
    }
    assert set(layers) == set(golden.files)
    for name, layer in layers.items():
        assert_agrees(layer, golden[name])


def test_losses_are_the_published_ones(step: Mapping[str, Any]) -> None:
    golden = json.loads((GOLDEN / "losses.json").read_text())
    real, fake = step["real"], step["fake"]
    losses = {
        "discriminator": hinge_discriminator(real, fake),
        "generator": hinge_generator(fake),
        "feature_matching": feature_matching(real, fake),
        "mel_reconstruction": mel_reconstruction(step["real_mel"], step["fake_mel"]),
    }
    for name, loss in losses.items():
        assert float(loss) == pytest.approx(golden[name], rel=1e-4), name
