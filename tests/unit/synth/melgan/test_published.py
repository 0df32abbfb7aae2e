from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from services.errors import InvalidInputError, SettingsMismatchError
from services.synth.melgan.published import read_discriminator, read_generator

RATE = {"sampling_rate": 44100}


def convolution(name: str, *shape: int) -> dict[str, Tensor]:
    return {
        f"{name}.bias": torch.zeros(1),
        f"{name}.weight_g": torch.ones(shape[0], 1, 1),
        f"{name}.weight_v": torch.ones(shape),
    }


def tiny(ratios: tuple[int, ...], ngf: int = 1, n_mels: int = 6) -> dict[str, Tensor]:
    """A published generator without residual layers, numbered with gaps as activations leave."""
    channels = ngf * 2 ** len(ratios)
    state = convolution("model.1", channels, n_mels, 7)
    state["model.1.bias"] = torch.zeros(channels)
    number = 3
    for ratio in ratios:
        state |= convolution(f"model.{number}", channels, channels // 2, 2 * ratio)
        channels //= 2
        state[f"model.{number}.bias"] = torch.zeros(channels)
        number += 2
    return state | convolution(f"model.{number}", 1, channels, 7)


@pytest.mark.parametrize("told", [[16, 16], "[16, 16]", "(16, 16)", (16, 16)])
def test_ratios_are_read_as_list_and_as_string(told: object) -> None:
    settings = read_generator({**RATE, "ratios": told}, tiny((16, 16))).settings
    assert settings.ratios == (16, 16)
    assert (settings.variant, settings.ngf, settings.n_mels) == ("original", 1, 6)


def test_the_form_is_found_in_the_weights_alone() -> None:
    settings = read_generator(RATE, tiny((4, 8, 8), ngf=3)).settings
    assert (settings.ratios, settings.ngf, settings.n_residual_layers) == ((4, 8, 8), 3, 0)
    assert settings.mel.sample_rate_hertz == 44100


@pytest.mark.parametrize("arguments", [{}, {"sampling_rate": None}, {"sampling_rate": "fast"}])
def test_a_missing_sample_rate_is_not_guessed(arguments: Mapping[str, object]) -> None:
    with pytest.raises(InvalidInputError, match="sampling_rate"):
        read_generator(arguments, tiny((16, 16)))


@pytest.mark.parametrize("wrong", [{"ratios": "[8, 8, 2, 2]"}, {"ngf": 32}, {"n_mel_channels": 80}])
def test_arguments_of_another_run_are_refused_by_name(wrong: Mapping[str, object]) -> None:
    with pytest.raises(SettingsMismatchError, match=next(iter(wrong))):
        read_generator({**RATE, **wrong}, tiny((16, 16)))


def test_ratios_that_run_code_are_read_as_no_ratios() -> None:
    with pytest.raises(InvalidInputError, match="ratios"):
        read_generator({**RATE, "ratios": "__import__('os').getcwd()"}, tiny((16, 16)))


def test_weights_that_do_not_make_the_published_hop_are_refused() -> None:
    with pytest.raises(SettingsMismatchError, match="hop"):
        read_generator(RATE, tiny((8, 8)))


def incomplete() -> dict[str, Tensor]:
    state = tiny((16, 16))
    del state["model.3.bias"]
    return state


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"encoder.weight": torch.zeros(1)},
        {"model.1.weight_v": torch.zeros(4, 4, 7)},
        {"epoch": 3},
        incomplete(),
        {**tiny((16, 16)), "model.99.weight": torch.zeros(1)},
    ],
)
def test_weights_of_something_else_are_refused(state: dict[str, Tensor]) -> None:
    with pytest.raises(InvalidInputError, match="MelGAN"):
        read_generator(RATE, state)
    with pytest.raises(InvalidInputError, match="MelGAN"):
        read_discriminator(RATE, state)
