from dataclasses import replace

import pytest
import torch

from services.errors import InvalidInputError
from services.synth.unagan.generator import UnaganSettings, build_generator
from services.synth.unagan.wandering import wandering


def white(columns: int = 300) -> torch.Tensor:
    return torch.randn((200, 3, columns), generator=torch.Generator().manual_seed(0))


def correlation(z: torch.Tensor, lag: int) -> torch.Tensor:
    """Of each channel, (channels,)."""
    return (z[..., lag:] * z[..., :-lag]).mean(dim=(0, 2))


def test_wandering_channels_remember_as_long_as_asked_and_stay_normal() -> None:
    z = wandering(white(), 2, memory_columns=10)

    assert z.dtype == torch.float32
    torch.testing.assert_close(z.std(dim=(0, 2)), torch.ones(3), atol=0.05, rtol=0)
    torch.testing.assert_close(
        correlation(z, 10), torch.tensor([0.368, 0.368, 0.0]), atol=0.06, rtol=0
    )
    torch.testing.assert_close(z[:, :2, 0].std(), torch.tensor(1.0), atol=0.3, rtol=0)


def test_white_channels_and_what_was_given_stay_as_they_are() -> None:
    given = white().double()
    before = given.clone()

    z = wandering(given, 2, memory_columns=10)

    assert torch.equal(given, before)
    assert torch.equal(z[:, 2], before[:, 2])
    assert wandering(given, 0, memory_columns=10) is given


def test_a_longer_sound_of_a_seed_is_its_own_but_its_noise_wanders_as_long() -> None:
    settings = UnaganSettings(z_dim=4, middle_dim=8, slow_channels=3, slow_seconds=0.5)
    generator = build_generator(settings)

    noise = generator.draw(16 * 400, list(range(8)))

    # A column is 16 hops of 256 samples: 93 ms.
    wandered = correlation(noise.z, 5)
    assert (wandered[:3] > 0.2).all()
    assert wandered[3].abs() < 0.1
    alone = generator.draw(16 * 400, [3])
    assert torch.equal(alone.z[0], noise.z[3])


def test_published_noise_is_white_and_old_configs_say_so() -> None:
    config = UnaganSettings().to_config()
    del config["slow_channels"], config["slow_seconds"]

    settings = UnaganSettings.from_config(config)

    assert settings == UnaganSettings()
    z = white()
    assert settings.shaped(z) is z
    assert replace(settings, slow_channels=99).shaped(z).shape == z.shape
    wanders = replace(settings, slow_channels=2, slow_seconds=1.5)
    assert UnaganSettings.from_config(wanders.to_config()) == wanders


@pytest.mark.parametrize(("name", "value"), [("slow_channels", -1), ("slow_seconds", 0.0)])
def test_noise_that_cannot_be_is_refused(name: str, value: float) -> None:
    with pytest.raises(InvalidInputError) as refused:
        replace(UnaganSettings(), **{name: value})
    assert refused.value.culprit == name
