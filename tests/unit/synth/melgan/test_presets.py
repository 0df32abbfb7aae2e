from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from services.errors import NotFoundError
from services.learning.precision import Precision
from services.synth.corpus.augmentation import Augmentation
from services.synth.corpus.clips import Clip
from services.synth.mel import MelSettings
from services.synth.melgan.discriminator import Discriminator, DiscriminatorSettings
from services.synth.melgan.generator import Generator, MelGanSettings
from services.synth.melgan.presets import PRESETS, preset
from services.synth.melgan.training import MelGanTrainer


@pytest.mark.parametrize("name", ["published-script", "published-notebook"])
def test_the_published_presets_are_the_published_training(name: str) -> None:
    settings = preset(name)
    # As the published arguments say, and tests/golden/melgan/*/args.yml.
    assert (settings.batch_size, settings.crop_samples) == (16, 8192)
    assert (settings.learning_rate, settings.betas) == (1e-4, (0.5, 0.9))
    assert (settings.feature_weight, settings.mel_weight, settings.stft_weight) == (10.0, 0.0, 0.0)
    assert settings.generator == MelGanSettings(
        variant="gru", ngf=32, n_residual_layers=3, ratios=(8, 8, 2, 2), excitation=False
    )
    assert settings.generator.mel == MelSettings(
        sample_rate_hertz=44100, n_fft=1024, hop_length=256, win_length=1024, n_mels=80
    )
    assert settings.discriminator == DiscriminatorSettings(
        scales=3, ndf=16, n_layers=4, downsampling_factor=4, max_channels=1024
    )
    # And what the published training does not know is off.
    assert settings.steps is None
    assert settings.schedule == "constant"
    assert (settings.max_gradient_norm, settings.average_decay) == (0.0, 0.0)
    assert (settings.adversarial_from_step, settings.fit_to_data) == (0, False)
    assert settings.augmentation == Augmentation()
    assert settings.precision == Precision(compute="float32", tf32=False, compile=False)


@pytest.mark.parametrize("name", list(PRESETS))
def test_the_constructors_take_what_a_preset_says(name: str) -> None:
    settings = preset(name)
    with torch.device("meta"):
        discriminator = Discriminator(settings.discriminator)
    assert len(discriminator.scales) == settings.discriminator.scales
    with torch.no_grad():
        generator = Generator(settings.generator)
        mel = torch.zeros(1, settings.generator.n_mels, settings.generator.shortest_frames)
        sound = generator(mel, generator.excite(mel, [0]))
    assert sound.shape == (1, 1, mel.shape[2] * settings.generator.mel.hop_length)


@pytest.mark.parametrize("name", list(PRESETS))
def test_a_step_of_every_preset_can_be_taken(name: str) -> None:
    """As narrow as can be, with all its other values."""
    settings = preset(name)
    narrow = replace(
        settings,
        generator=replace(settings.generator, ngf=1),
        discriminator=DiscriminatorSettings(scales=2, ndf=1, n_layers=1, max_channels=2),
        batch_size=2,
        adversarial_from_step=0,
    )
    noise = np.random.default_rng(0).normal(0, 0.1, 44100).astype(np.float32)
    clips = [Clip("a.wav", noise), Clip("b.wav", noise[::-1].copy())]
    trainer = MelGanTrainer(narrow, clips, device="cpu", seed=0)
    assert all(torch.isfinite(value) for value in trainer.step().values())


@pytest.mark.parametrize("name", list(PRESETS))
def test_presets_take_the_mel_settings_they_are_given(name: str) -> None:
    mel = MelSettings(sample_rate_hertz=22050)
    given, own = preset(name, mel), preset(name)
    assert given.generator.mel == mel
    others = [field.name for field in fields(given) if field.name != "generator"]
    assert [getattr(given, n) for n in others] == [getattr(own, n) for n in others]


def test_presets_that_are_not_published_say_how_long_they_train() -> None:
    assert all(PRESETS[name].steps for name in PRESETS if not name.startswith("published"))


def test_an_unknown_preset_is_refused_with_those_there_are() -> None:
    with pytest.raises(NotFoundError, match="demo-cpu"):
        preset("best")
