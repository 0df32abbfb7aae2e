from collections.abc import Callable

import numpy as np
import pytest
import torch

from services.errors import CancelledError, InvalidInputError
from services.synth.generation import bulk
from services.synth.generation.bulk import generate_each
from services.synth.generation.synthesizer import Synthesizer
from services.synth.mel import MelSettings
from services.synth.melgan.generator import Generator, MelGanSettings
from services.synth.unagan.generator import Noise, Unagan, UnaganSettings, build_generator

MEL = MelSettings(sample_rate_hertz=16_000, n_fft=256, hop_length=64, win_length=256, n_mels=10)
SEEDS = [3, 2**64 - 1, 0, 7, 12]


def synthesizer(*, excitation: bool = False) -> Synthesizer:
    torch.manual_seed(0)
    settings = UnaganSettings(z_dim=4, z_scale_factors=(2, 2), middle_dim=16, mel=MEL)
    generator = build_generator(settings).eval().requires_grad_(False)
    unagan = Unagan(settings, generator, torch.full((10,), -2.0), torch.ones(10))
    voice = MelGanSettings(variant="gru", ngf=2, ratios=(8, 8), mel=MEL, excitation=excitation)
    vocoder = Generator(voice).remove_weight_norm().eval().requires_grad_(False)
    return Synthesizer(unagan, vocoder, unagan_id="u@1", melgan_id="m@2")


@pytest.mark.parametrize("excitation", [False, True])
@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_a_batch_sings_what_single_calls_sing(
    at_once: int, excitation: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = synthesizer(excitation=excitation)
    monkeypatch.setattr(bulk, "FRAMES_AT_ONCE", at_once * both.frames(9000))

    sounds = list(generate_each(both, 9000, SEEDS))

    assert len(sounds) == len(SEEDS)
    for seed, sound in zip(SEEDS, sounds, strict=True):
        assert isinstance(sound, np.ndarray)
        assert (sound.shape, sound.dtype) == ((9000,), np.float32)
        np.testing.assert_allclose(sound, both.generate(9000, seed), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "failure", [InvalidInputError("poison"), RuntimeError("no memory is left")]
)
def test_an_item_that_fails_fails_alone(
    failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = synthesizer()
    expected = [both.generate(2000, seed) for seed in SEEDS]
    draw: Callable[..., Noise] = both.unagan.generator.draw

    def poisoned(frames: int, seeds: list[int]) -> Noise:
        if 0 in seeds:
            raise failure
        return draw(frames, seeds)

    monkeypatch.setattr(both.unagan.generator, "draw", poisoned)

    sounds = list(generate_each(both, 2000, SEEDS))

    for seed, sound, alone in zip(SEEDS, sounds, expected, strict=True):
        if seed == 0:
            assert isinstance(sound, Exception)
            assert str(failure) in str(sound)
        else:
            np.testing.assert_allclose(sound, alone, atol=1e-5, rtol=0)


def test_whoever_leaves_ends_the_batch_and_keeps_what_is_finished() -> None:
    both, finished, asked = synthesizer(), 0, 0

    def checkpoint() -> None:
        nonlocal asked
        asked += 1
        if finished == 2:
            raise CancelledError("the caller has gone")

    def listen() -> None:
        nonlocal finished
        for _ in generate_each(both, 2000, SEEDS, checkpoint):
            finished += 1

    with pytest.raises(CancelledError):
        listen()
    assert finished == 2


def test_no_samples_at_all_are_refused_before_any_work() -> None:
    with pytest.raises(InvalidInputError):
        list(generate_each(synthesizer(), 0, SEEDS))
