from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from services.errors import InvalidInputError, SettingsMismatchError
from services.synth.generation.synthesizer import Synthesizer, resynthesize
from services.synth.mel import MelSettings
from services.synth.melgan.generator import Generator as Vocoder
from services.synth.melgan.generator import MelGanSettings
from services.synth.unagan.generator import Generator as Singer
from services.synth.unagan.generator import Unagan, UnaganSettings, build_generator

MEL = MelSettings(sample_rate_hertz=16_000, n_fft=256, hop_length=64, win_length=256, n_mels=10)


def vocoder(mel: MelSettings = MEL) -> Vocoder:
    ratios = (8, mel.hop_length // 8)
    settings = MelGanSettings(variant="original", ngf=2, ratios=ratios, mel=mel)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Vocoder(settings).remove_weight_norm().eval().requires_grad_(False)


def unagan(mel: MelSettings = MEL) -> Unagan:
    settings = UnaganSettings(z_dim=4, z_scale_factors=(2, 2), middle_dim=8, num_groups=2, mel=mel)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        generator = build_generator(settings).eval().requires_grad_(False)
    return Unagan(settings, generator, torch.full((mel.n_mels,), -1.0), torch.ones(mel.n_mels))


def synthesizer() -> Synthesizer:
    return Synthesizer(unagan(), vocoder(), unagan_id="u@1", melgan_id="m@2")


@pytest.mark.parametrize("length", [1, 63, 64, 65, 1000, 4096])
def test_a_sound_lasts_exactly_as_long_as_asked_for(length: int) -> None:
    samples = synthesizer().generate(length, seed=3)

    assert samples.shape == (length,)
    assert samples.dtype == np.float32
    assert np.abs(samples).max() < 1


def test_a_seed_gives_the_same_samples_and_another_seed_others() -> None:
    first, again, other = (synthesizer().generate(2000, seed) for seed in (1, 1, 2**64 - 1))

    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.std() > 0


@pytest.mark.parametrize("seed", [0, 1, 2**64 - 1])
def test_the_vocoder_hears_other_noise_than_the_singer(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: dict[type, list[float]] = {}

    def kept(kind: type, name: str, values: Callable[[Any], torch.Tensor]) -> None:
        draw = getattr(kind, name)

        def draw_and_keep(self: object, *given: object) -> object:
            noise = draw(self, *given)
            drawn[kind] = values(noise).flatten().tolist()
            return noise

        monkeypatch.setattr(kind, name, draw_and_keep)

    kept(Singer, "draw", lambda noise: noise.z)
    kept(Vocoder, "excite", lambda noise: noise)
    settings = MelGanSettings(variant="original", ngf=2, ratios=(8, 8), mel=MEL, excitation=True)
    noisy = Vocoder(settings).remove_weight_norm().eval().requires_grad_(False)

    Synthesizer(unagan(), noisy, unagan_id="u@1", melgan_id="m@2").generate(20_000, seed)

    assert len(drawn) == 2
    assert not set(drawn[Singer]) & set(drawn[Vocoder])


def test_no_samples_at_all_are_refused() -> None:
    with pytest.raises(InvalidInputError) as refused:
        synthesizer().generate(0, seed=0)

    assert refused.value.culprit == "duration"


@pytest.mark.parametrize(
    ("name", "value"),
    [("sample_rate_hertz", 22_050), ("n_mels", 12), ("hop_length", 32), ("win_length", 200)],
)
def test_models_of_other_mel_settings_are_refused_by_both_names_and_the_setting(
    name: str, value: int
) -> None:
    with pytest.raises(SettingsMismatchError) as refused:
        Synthesizer(
            unagan(), vocoder(replace(MEL, **{name: value})), unagan_id="u@1", melgan_id="m@2"
        )

    for word in (name, str(value), str(getattr(MEL, name)), "u@1", "m@2"):
        assert word in refused.value.message


def test_work_stops_at_the_checkpoint_that_raises() -> None:
    called = 0

    def stop_at_third() -> None:
        nonlocal called
        called += 1
        if called == 3:
            raise TimeoutError

    with pytest.raises(TimeoutError):
        synthesizer().generate(1000, 0, stop_at_third)
    assert called == 3
    called = 1
    with pytest.raises(TimeoutError):
        resynthesize(vocoder(), np.ones((1000, 1), np.float32), 16_000, stop_at_third)


@pytest.mark.parametrize("frames", [1, 63, 500, 5000])
def test_a_copy_is_as_long_as_its_sound(frames: int) -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, (frames, 1)).astype(np.float32)

    copy = resynthesize(vocoder(), samples, 16_000)

    assert copy.shape == (frames,)
    assert np.isfinite(copy).all()
    assert np.abs(copy).max() < 1


def test_sound_of_another_rate_and_width_is_copied_at_the_models_rate() -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, (3200, 2)).astype(np.float32)

    assert resynthesize(vocoder(), samples, 32_000).shape == (1600,)
