"""The excitation turns the phase of each spectral peak by its own frequency."""

import numpy as np
import pytest
import torch

from services.synth.mel import MelSettings, MelSpectrogram
from services.synth.melgan.excitation import BLOCK_FRAMES, Excitation

SETTINGS = MelSettings()
RATE = SETTINGS.sample_rate_hertz


def mel_of(sound: np.ndarray) -> torch.Tensor:
    with torch.no_grad():
        return MelSpectrogram(SETTINGS)(torch.from_numpy(sound)[None, None])


def excited(mel: torch.Tensor, seeds: list[int]) -> np.ndarray:
    excitation = Excitation(SETTINGS)
    return excitation(mel, excitation.draw_turns(seeds)).numpy()


def tone(frequency: float, frames: int = 172) -> np.ndarray:
    time = np.arange(frames * SETTINGS.hop_length) / RATE
    return (0.5 * np.sin(2 * np.pi * frequency * time)).astype(np.float32)


@pytest.mark.parametrize("frequency", [313.0, 440.0, 987.0])
def test_a_tone_comes_back_at_its_pitch_and_level_and_not_at_the_frame_rate(
    frequency: float,
) -> None:
    (wave,) = excited(mel_of(tone(frequency)), [0])
    middle = wave[8192 : 8192 + 16384] * np.hanning(16384)
    spectrum = np.abs(np.fft.rfft(middle))
    found = spectrum.argmax() * RATE / 16384
    # Mel bands are 40 Hz apart down here; multiples of the frame rate are 172 Hz apart.
    assert found == pytest.approx(frequency, abs=20)
    lobe = slice(spectrum.argmax() - 40, spectrum.argmax() + 40)
    assert np.square(spectrum[lobe]).sum() > 0.9 * np.square(spectrum).sum()
    assert wave[8192:-8192].std() == pytest.approx(tone(frequency).std(), rel=0.3)


def test_each_item_has_the_excitation_of_its_own_seed_whatever_is_beside_it() -> None:
    mels = torch.cat([mel_of(tone(313.0, 40)), mel_of(tone(987.0, 40))])
    both = excited(mels, [1, 2])
    assert both.shape == (2, 40 * SETTINGS.hop_length)
    assert both.dtype == np.float32
    np.testing.assert_allclose(both[1:], excited(mels[1:], [2]), atol=1e-5)
    assert np.abs(both[1:] - excited(mels[1:], [3])).max() > 0.1


def test_a_long_mel_goes_on_over_its_blocks() -> None:
    frames = BLOCK_FRAMES + 200
    (wave,) = excited(mel_of(tone(440.0, frames)), [0])
    seam = BLOCK_FRAMES * SETTINGS.hop_length
    # A break in the phase would be a click, steeper than anything in the tone.
    steepest = np.abs(np.diff(wave[8192 : seam - 8192])).max()
    assert np.abs(np.diff(wave[seam - 2048 : seam + 2048])).max() <= steepest * 1.05


def test_silence_excites_nothing() -> None:
    wave = excited(torch.full((1, 80, 30), -5.0), [0])
    assert np.abs(wave).max() < 1e-3
