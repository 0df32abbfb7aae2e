import json

import pytest
import torch

from services.errors import CorruptObjectError, InvalidInputError, SettingsMismatchError
from services.synth.mel import MelSettings
from services.synth.melgan.generator import (
    Generator,
    MelGanSettings,
    load_generator,
    save_generator,
    vocode,
)

VARIANTS = ["original", "gru"]


def small(variant: str = "original") -> MelGanSettings:
    return MelGanSettings.from_config(
        {**MelGanSettings().to_config(), "variant": variant, "ngf": 2}
    )


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("ratios", [(8, 8, 2, 2), (4, 64), (256,)])
def test_every_frame_becomes_one_hop_of_samples(variant: str, ratios: tuple[int, ...]) -> None:
    settings = MelGanSettings.from_config({**small(variant).to_config(), "ratios": list(ratios)})
    assert Generator(settings)(torch.zeros(2, 80, 7)).shape == (2, 1, 7 * 256)


def test_odd_ratios_reach_their_hop_exactly() -> None:
    mel = MelSettings(sample_rate_hertz=22050, n_fft=513, hop_length=105, win_length=400, n_mels=8)
    settings = MelGanSettings(ngf=2, ratios=(7, 5, 3), mel=mel)
    assert Generator(settings)(torch.zeros(1, 8, 9)).shape == (1, 1, 9 * 105)


def test_ratios_that_do_not_make_the_hop_are_refused() -> None:
    with pytest.raises(SettingsMismatchError, match="256"):
        MelGanSettings(ratios=(8, 8, 2))


def test_an_unknown_variant_is_refused_by_name() -> None:
    with pytest.raises(SettingsMismatchError, match="hifi"):
        small("hifi")


@pytest.mark.parametrize("variant", VARIANTS)
def test_folding_weight_norm_changes_nothing_that_is_heard(variant: str) -> None:
    generator = Generator(small(variant))
    mel = torch.randn(1, 80, 20)
    with torch.no_grad():
        before = generator(mel)
        after = generator.remove_weight_norm()(mel)
    assert torch.allclose(before, after, atol=1e-5)
    assert not any("parametrizations" in name for name in generator.state_dict())


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_stored_generator_sounds_the_same_and_the_saved_one_stays_trainable(variant: str) -> None:
    generator = Generator(small(variant))
    names = set(generator.state_dict())
    weights = save_generator(generator)
    assert set(generator.state_dict()) == names
    config = json.loads(json.dumps({"family": "melgan", **generator.settings.to_config()}))
    loaded, settings = load_generator(config, weights)
    assert settings == generator.settings
    assert not loaded.training
    mel = torch.randn(1, 80, 12)
    assert torch.allclose(vocode(loaded, mel), vocode(generator, mel), atol=1e-5)


def test_the_same_mel_gives_the_same_samples_and_leaves_the_random_state_alone() -> None:
    generator = Generator(small("gru")).remove_weight_norm()
    mel = torch.randn(1, 80, 40)
    state = torch.random.get_rng_state()
    assert torch.equal(vocode(generator, mel), vocode(generator, mel))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_weights_of_another_width_or_kind_are_refused() -> None:
    generator = Generator(small())
    wider = {**generator.settings.to_config(), "ngf": 4}
    with pytest.raises(CorruptObjectError, match="do not fit"):
        load_generator(wider, save_generator(generator))
    with pytest.raises(CorruptObjectError, match="do not fit"):
        load_generator(generator.settings.to_config(), b"no safetensors")


def test_a_config_without_ratios_is_refused_by_name() -> None:
    config = small().to_config()
    del config["ratios"]
    with pytest.raises(SettingsMismatchError, match="ratios"):
        load_generator(config, b"")


@pytest.mark.parametrize("shape", [(80, 20), (1, 40, 20)])
def test_a_mel_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInputError, match="80"):
        Generator(small())(torch.zeros(shape))


@pytest.mark.parametrize("layers", [0, 3, 5])
@pytest.mark.parametrize("ratios", [(8, 8, 2, 2), (2, 2, 8, 8)])
def test_the_shortest_mel_sounds_and_a_shorter_one_is_refused(
    layers: int, ratios: tuple[int, ...]
) -> None:
    settings = MelGanSettings(variant="gru", ngf=1, n_residual_layers=layers, ratios=ratios)
    generator = Generator(settings)
    shortest = settings.shortest_frames
    assert generator(torch.zeros(1, 80, shortest)).shape == (1, 1, shortest * 256)
    with pytest.raises(InvalidInputError, match=str(shortest)):
        generator(torch.zeros(1, 80, shortest - 1))


def excited(*, excitation: bool = True) -> Generator:
    settings = MelGanSettings(variant="original", ngf=2, ratios=(16, 16), excitation=excitation)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Generator(settings).eval()


def test_an_excitation_is_drawn_from_the_seed_and_must_be_given() -> None:
    generator = excited()
    loaded, found = load_generator(generator.settings.to_config(), save_generator(generator))
    assert found == generator.settings
    steady = torch.linspace(0, -4, 80)[None, :, None].expand(2, 80, 24)
    heard = vocode(loaded, steady, [5, 6])
    assert torch.equal(heard, vocode(loaded, steady, [5, 6]))
    assert torch.allclose(heard[:1], vocode(loaded, steady[:1], [5]), atol=1e-6)
    assert not torch.equal(heard[0], heard[1])
    with pytest.raises(InvalidInputError, match="wants an excitation"):
        loaded(steady)
    plain = excited(excitation=False)
    assert plain.excite(steady, [5, 6]) is None
    with pytest.raises(InvalidInputError, match="knows no excitation"):
        plain(steady, loaded.excite(steady, [5, 6]))


def test_only_an_excitation_keeps_a_steady_spectrum_from_repeating_every_hop() -> None:
    def strays(*, excitation: bool) -> float:
        generator = excited(excitation=excitation)
        steady = torch.linspace(0, -4, 80)[None, :, None].expand(1, 80, 48)
        sound = vocode(generator, steady, [1])[0, 0, 16 * 256 : 32 * 256]
        return float((sound[256:] - sound[:-256]).abs().max() / sound.std())

    assert strays(excitation=False) < 1e-3
    assert strays(excitation=True) > 0.5
