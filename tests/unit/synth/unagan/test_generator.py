import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save

from services.errors import CorruptObjectError, InvalidInputError
from services.synth.mel import MelSettings
from services.synth.unagan.encoder import Encoder
from services.synth.unagan.generator import (
    Unagan,
    UnaganSettings,
    Variant,
    build_generator,
    load_generator,
)

NARROW = UnaganSettings(z_dim=5, middle_dim=8, num_groups=2, mel=MelSettings(n_mels=12))


def model(settings: UnaganSettings = NARROW, seed: int = 0) -> Unagan:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generator = build_generator(settings).eval().requires_grad_(False)
    return Unagan(
        settings, generator, torch.full((settings.feat_dim,), -2.0), torch.ones(settings.feat_dim)
    )


@pytest.mark.parametrize("variant", ["hierarchical", "nonhierarchical"])
def test_a_seed_means_one_sound_and_another_seed_another(variant: Variant) -> None:
    unagan = model(replace(NARROW, variant=variant))

    first, again, other = (unagan.sing(50, [seed]) for seed in (7, 7, 8))

    assert torch.equal(first, again)
    assert (first - other).abs().mean() > 0.01
    assert first.shape == (1, 12, 50)


def test_what_was_drawn_before_does_not_change_a_sound() -> None:
    unagan = model()
    torch.manual_seed(1)
    first = unagan.sing(32, [7])
    torch.manual_seed(2)

    assert torch.equal(unagan.sing(32, [7]), first)


def test_an_item_sounds_the_same_alone_and_in_any_batch() -> None:
    unagan = model()

    together = unagan.sing(48, [3, 2**64 - 1, 5])

    for item, seed in zip(together, (3, 2**64 - 1, 5), strict=True):
        assert torch.allclose(item, unagan.sing(48, [seed])[0], atol=1e-5)


def test_the_initial_states_are_heard() -> None:
    generator = model().generator
    noise = generator.draw(32, [1])

    with torch.no_grad():
        drawn = generator(noise.z, noise.states)
        zero = generator(noise.z, [torch.zeros_like(state) for state in noise.states])

    assert [state.shape for state in noise.states] == [(2, 1, 8)] * 5
    assert not torch.allclose(drawn, zero)


@pytest.mark.parametrize(("factors", "frames_per_z"), [((2, 2, 2, 2), 16), ((3, 2), 6), ((1,), 1)])
def test_scale_factors_reach_generator_encoder_and_config(
    factors: tuple[int, ...], frames_per_z: int
) -> None:
    settings = replace(NARROW, z_scale_factors=factors)
    generator = build_generator(settings)
    encoder = Encoder(settings.feat_dim, settings.z_dim, settings.z_scale_factors, 8)
    noise = generator.draw(7 * frames_per_z, [0])

    with torch.no_grad():
        mel = generator(noise.z, noise.states)

    assert settings.frames_per_z == frames_per_z
    assert noise.z.shape == (1, 5, 7)
    assert mel.shape == (1, 12, 7 * frames_per_z)
    assert encoder(mel).shape == noise.z.shape
    assert UnaganSettings.from_config(json.loads(json.dumps(settings.to_config()))) == settings


def test_one_frame_more_is_one_frame_more() -> None:
    unagan = model()

    assert unagan.sing(17, [0]).shape[2] == 17
    assert unagan.sing(1, [0]).shape[2] == 1


def test_mels_are_given_back_their_mean_and_spread() -> None:
    plain = model()
    mean, std = torch.linspace(-4, -1, 12), torch.linspace(0.5, 2, 12)
    scaled = Unagan(plain.settings, plain.generator, mean, std)

    expected = (plain.sing(20, [0]) + 2.0) * std[:, None] + mean[:, None]

    assert torch.allclose(scaled.sing(20, [0]), expected, atol=1e-5)


def test_a_stored_model_sings_what_it_sang() -> None:
    unagan = model()
    config = {
        **NARROW.to_config(),
        "mean": unagan.mean.tolist(),
        "std": unagan.std.tolist(),
    }

    loaded = load_generator(json.loads(json.dumps(config)), save(unagan.generator.state_dict()))

    assert torch.equal(loaded.sing(40, [3]), unagan.sing(40, [3]))
    assert not loaded.generator.training


@pytest.mark.parametrize(
    ("change", "culprit"),
    [
        ({"variant": "sideways"}, "variant"),
        ({"num_groups": 3}, "num_groups"),
        ({"z_scale_factors": []}, "z_scale_factors"),
        ({"z_scale_factors": [2, 0]}, "z_scale_factors"),
        ({"feat_dim": 80}, "feat_dim"),
        ({"z_dim": None}, "z_dim"),
        ({"mean": [0.0]}, "mean"),
        ({"std": None}, "std"),
    ],
)
def test_a_config_that_cannot_be_is_refused_by_name(
    change: dict[str, object], culprit: str
) -> None:
    config = {**NARROW.to_config(), "mean": [0.0] * 12, "std": [1.0] * 12, **change}
    config = {key: value for key, value in config.items() if value is not None}

    with pytest.raises(InvalidInputError) as refused:
        load_generator(config, save(model().generator.state_dict()))

    assert refused.value.culprit == culprit


@pytest.mark.parametrize("weights", [b"", b"not safetensors", save({"x": torch.zeros(1)})])
def test_weights_that_do_not_fit_are_refused(weights: bytes) -> None:
    config = {**NARROW.to_config(), "mean": [0.0] * 12, "std": [1.0] * 12}

    with pytest.raises(CorruptObjectError):
        load_generator(config, weights)
