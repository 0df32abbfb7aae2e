import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from services.errors import InvalidInputError
from services.synth.mel import MelSettings
from services.synth.unagan.generator import UnaganSettings, build_generator, load_generator
from services.synth.unagan.published import import_generator

SETTINGS = UnaganSettings(
    z_dim=3, z_scale_factors=(2, 2), middle_dim=12, num_groups=3, mel=MelSettings(n_mels=10)
)
MEAN, STD = np.linspace(-3, -1, 10), np.linspace(0.5, 1, 10)


def published_keys(settings: UnaganSettings) -> dict[str, Tensor]:
    """A fresh generator's weights under the keys that the published system gives them."""
    names = {"conv_in": "0", "norm": "1", "recurrent": "3", "conv_out": "4"}

    def block(found: re.Match[str]) -> str:
        number = int(found[1])
        place = "block0" if not number else f"blocks.{number - 1}"
        return f"{place}.block.{names[found[2]]}."

    def head(found: re.Match[str]) -> str:
        return "head0." if found[1] == "0" else f"heads.{int(found[1]) - 1}."

    state = {}
    for ours, tensor in build_generator(settings).state_dict().items():
        key = re.sub(r"^blocks\.(\d+)\.(\w+)\.", block, ours)
        key = re.sub(r"^heads\.(\d+)\.", head, key)
        state[key.replace(".gru.", ".rec.").replace("block.3.norm.", "block.3.gn.")] = tensor
    return state


def test_widths_groups_and_steps_are_inferred_from_the_weights() -> None:
    weights, config = import_generator(
        {"state_dict.model": published_keys(SETTINGS), "state_dict.optimizer": {}}, MEAN, STD
    )

    loaded = load_generator(config, weights)

    assert loaded.settings == SETTINGS
    np.testing.assert_allclose(loaded.mean.numpy(), MEAN, rtol=1e-6)


def test_scale_factors_and_mel_settings_are_taken_as_told() -> None:
    mel = MelSettings(sample_rate_hertz=22050, n_mels=10)
    _, config = import_generator(
        published_keys(SETTINGS), MEAN, STD, {"z_scale_factors": [4, 2]}, mel
    )

    assert UnaganSettings.from_config(config) == replace(SETTINGS, z_scale_factors=(4, 2), mel=mel)


@pytest.mark.parametrize(
    ("config", "culprit"),
    [
        ({"middle_dim": 512}, "middle_dim"),
        ({"feat_dim": 80}, "feat_dim"),
        ({"num_groups": 4}, "num_groups"),
        ({"z_scale_factors": [2, 2, 2, 2]}, "z_scale_factors"),
    ],
)
def test_a_config_that_contradicts_the_weights_is_refused(
    config: dict[str, object], culprit: str
) -> None:
    with pytest.raises(InvalidInputError) as refused:
        import_generator(published_keys(SETTINGS), MEAN, STD, config)

    assert refused.value.culprit == culprit


def test_statistics_of_other_bands_are_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"std\.mel\.npy"):
        import_generator(published_keys(SETTINGS), MEAN, np.ones(80))
    with pytest.raises(InvalidInputError, match=r"mean\.mel\.npy"):
        import_generator(published_keys(SETTINGS), np.full(10, np.nan), STD)


def test_other_weights_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="not the weights of an UNAGAN generator"):
        import_generator({"fc.weight": torch.zeros(3, 3)}, MEAN, STD)
    damaged = published_keys(SETTINGS)
    del damaged["heads.0.bias"]
    with pytest.raises(InvalidInputError, match="not the weights of an UNAGAN generator"):
        import_generator(damaged, MEAN, STD)
