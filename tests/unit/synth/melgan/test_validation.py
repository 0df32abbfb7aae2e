from dataclasses import replace

import numpy as np
import pytest
import torch

from services.synth.corpus.clips import Clip
from services.synth.mel import MelSettings, MelSpectrogram
from services.synth.melgan import validation
from services.synth.melgan.generator import Generator, MelGanSettings, vocode
from services.synth.melgan.validation import CopySynthesis

RATE = 8000
MEL = MelSettings(sample_rate_hertz=RATE, n_fft=256, hop_length=64, win_length=256, n_mels=16)
SETTINGS = MelGanSettings(
    variant="original", ngf=2, n_residual_layers=1, ratios=(8, 8), excitation=True, mel=MEL
)


@pytest.fixture
def generator() -> Generator:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return Generator(SETTINGS)


def clip(name: str, samples: int, seed: int = 0) -> Clip:
    random = np.random.default_rng(seed)
    return Clip(name, (0.1 * random.standard_normal(samples)).astype(np.float32))


def copies(clips: list[Clip], seconds: float = 30.0) -> CopySynthesis:
    return CopySynthesis(clips, SETTINGS, MelSpectrogram(MEL), seconds)


def test_the_error_is_the_mean_over_all_frames_that_were_listened_to(generator: Generator) -> None:
    short, long = clip("short.wav", 6400, 1), clip("long.wav", 19200, 2)
    errors = [copies([c]).mel_error(generator) for c in (short, long)]
    both = copies([short, long]).mel_error(generator)
    assert both == pytest.approx((errors[0] + 3 * errors[1]) / 4, rel=1e-5)


def test_no_more_than_the_given_seconds_are_listened_to(generator: Generator) -> None:
    whole = clip("a.wav", 2 * RATE)
    start = Clip("a.wav", whole.samples[:RATE])
    unheard = clip("b.wav", RATE, 3)
    assert copies([whole, unheard], 1.0).mel_error(generator) == copies([start]).mel_error(
        generator
    )


def test_a_long_clip_is_vocoded_in_pieces_of_one_length(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[int] = []

    def noted(network: Generator, mel: torch.Tensor) -> torch.Tensor:
        heard.append(mel.shape[2])
        return vocode(network, mel)

    monkeypatch.setattr(validation, "vocode", noted)
    copies([clip("long.wav", 10 * RATE)]).mel_error(generator)
    assert heard == [500, 500, 250]


def test_a_generator_is_left_as_ready_to_learn_as_it_was(generator: Generator) -> None:
    for training in (True, False):
        generator.train(training)
        copies([clip("a.wav", RATE)]).mel_error(generator)
        assert generator.training is training


def test_examples_are_recordings_beside_their_copies(generator: Generator) -> None:
    clips = [clip("a.wav", 7 * RATE), clip("b.wav", 100), clip("c.wav", RATE)]
    examples = copies(clips).examples(generator)
    assert list(examples) == [
        *("recording/a.wav", "copy/a.wav"),
        *("recording/b.wav", "copy/b.wav"),
    ]
    assert {rate for _, rate in examples.values()} == {RATE}
    recording, copy = examples["recording/a.wav"][0], examples["copy/a.wav"][0]
    assert np.array_equal(recording, clips[0].samples[: 5 * RATE])
    assert recording.shape == copy.shape
    assert recording.dtype == copy.dtype == np.float32
    assert np.abs(copy).max() <= 1


def test_shorter_clips_than_a_generator_can_vocode_are_padded(generator: Generator) -> None:
    wide = replace(SETTINGS, n_residual_layers=3)
    error = CopySynthesis([clip("a.wav", 1)], wide, MelSpectrogram(MEL), 1.0).mel_error(generator)
    assert np.isfinite(error)
