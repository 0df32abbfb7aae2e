import json

import numpy as np
import pytest
import torch

from services.errors import InvalidInputError, SettingsMismatchError
from services.synth.mel import MelSettings, MelSpectrogram

SMALL = MelSettings(sample_rate_hertz=8000, n_fft=256, hop_length=64, win_length=256, n_mels=20)


@pytest.mark.parametrize("settings", [MelSettings(), SMALL])
def test_whole_hops_of_sound_give_as_many_frames(settings: MelSettings) -> None:
    audio = torch.zeros(2, 1, 10 * settings.hop_length)
    assert MelSpectrogram(settings)(audio).shape == (2, settings.n_mels, 10)


def test_the_bands_follow_the_sample_rate() -> None:
    def loudest_band(rate: int) -> int:
        time = torch.arange(8192) / rate
        mel = MelSpectrogram(MelSettings(sample_rate_hertz=rate))
        return int(mel(torch.sin(2 * torch.pi * 2000 * time)[None, None]).mean(2).argmax())

    assert loudest_band(16000) > loudest_band(44100)


def test_silence_is_minus_five_and_has_a_finite_gradient() -> None:
    audio = torch.zeros(1, 1, 4096, requires_grad=True)
    mel = MelSpectrogram(MelSettings())(audio)
    assert torch.equal(mel, torch.full_like(mel, -5.0))
    torch.autograd.backward(mel.sum())
    assert audio.grad is not None
    assert torch.isfinite(audio.grad).all()


def test_partly_silent_sound_has_a_finite_gradient() -> None:
    audio = torch.cat([torch.zeros(1, 1, 4096), torch.rand(1, 1, 4096)], dim=2).requires_grad_()
    torch.autograd.backward(MelSpectrogram(MelSettings())(audio).sum())
    assert audio.grad is not None
    assert torch.isfinite(audio.grad).all()


@pytest.mark.parametrize("shape", [(1, 8192), (1, 2, 8192), (1, 1, 384)])
def test_sound_of_another_shape_or_too_short_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInputError, match="mel"):
        MelSpectrogram(MelSettings())(torch.zeros(shape))


def test_the_shortest_sound_has_a_spectrogram() -> None:
    shortest = MelSettings().shortest_samples
    assert MelSpectrogram(MelSettings())(torch.zeros(1, 1, shortest)).shape[2] >= 1


def test_settings_survive_json() -> None:
    assert MelSettings.from_config(json.loads(json.dumps(SMALL.to_config()))) == SMALL


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"n_fft": 0}, "n_fft"),
        ({"win_length": 2048}, "win_length"),
        ({"hop_length": 255}, "hop_length"),
        ({"hop_length": 2048}, "hop_length"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(change: dict[str, int], named: str) -> None:
    with pytest.raises(SettingsMismatchError, match=named):
        MelSettings(**change)


def test_a_config_with_a_gap_is_refused_by_name() -> None:
    config = MelSettings().to_config()
    del config["n_mels"]
    with pytest.raises(SettingsMismatchError, match="n_mels"):
        MelSettings.from_config(config)


def test_weights_hold_nothing_that_the_settings_say() -> None:
    assert MelSpectrogram(MelSettings()).state_dict() == {}


def test_louder_sound_has_a_louder_spectrogram() -> None:
    audio = torch.from_numpy(np.random.default_rng(0).uniform(-0.1, 0.1, (1, 1, 8192))).float()
    mel = MelSpectrogram(MelSettings())
    assert torch.allclose(mel(10 * audio), mel(audio) + 1, atol=1e-4)
