from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from services.errors import InvalidInputError
from services.synth.corpus.clips import Clip
from services.synth.evaluation.copy_synthesis import CopySynthesis, judge_melgan
from services.synth.evaluation.excerpts import excerpts
from services.synth.evaluation.judgement import log_mel
from services.synth.evaluation.spectral_distance import stft_distance
from services.synth.griffin_lim import griffin_lim
from services.synth.mel import MelSettings
from services.synth.melgan.generator import Generator, MelGanSettings

RECORDED = Path(__file__).parents[4] / "examples" / "corpus" / "recorded"
RATE = 44_100
MEL = MelSettings()
TINY = MelSettings(sample_rate_hertz=16_000, n_fft=256, hop_length=64, win_length=256, n_mels=16)


def recording(name: str, seconds: float = 1.0) -> np.ndarray:
    samples, rate = soundfile.read(RECORDED / f"{name}.flac", dtype="float32", always_2d=True)
    assert rate == RATE
    return samples.mean(axis=1)[: round(seconds * rate)]


def copy_of(samples: np.ndarray) -> np.ndarray:
    return griffin_lim(log_mel(samples, MEL), MEL)[: len(samples)]


def noise(like: np.ndarray) -> np.ndarray:
    random = np.random.default_rng(0).standard_normal(len(like))
    return (random * np.sqrt(np.square(like).mean())).astype(np.float32)


def generator(mel: MelSettings = TINY) -> Generator:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        settings = MelGanSettings(variant="original", ngf=2, ratios=(8, 8), mel=mel)
        return Generator(settings).remove_weight_norm().eval().requires_grad_(False)


def clips(*lengths: int) -> list[Clip]:
    return [
        Clip(f"{number}.wav", recording("guit_em9")[:length].copy())
        for number, length in enumerate(lengths)
    ]


@pytest.mark.parametrize("name", ["ambi_choir", "guit_e_fifths"])
def test_a_sound_is_at_no_distance_of_itself_far_from_noise_and_griffin_lim_between(
    name: str,
) -> None:
    samples = recording(name)
    assert stft_distance(samples, samples) == 0
    near, far = stft_distance(samples, copy_of(samples)), stft_distance(samples, noise(samples))
    assert 0.5 < near < 1.2
    assert far > 2 * near


def test_spectral_convergence_and_logarithms_count_as_published() -> None:
    samples = recording("guit_em9")
    # Twice as loud: the difference is the recording itself, and each magnitude differs by ln 2.
    assert stft_distance(samples, 2 * samples) == pytest.approx(1 + np.log(2), abs=0.01)


def test_the_distance_from_silence_is_a_number() -> None:
    silence = np.zeros(4000, np.float32)
    assert stft_distance(silence, silence) == 0
    assert np.isfinite(stft_distance(silence, noise(np.ones(4000))))
    assert np.isfinite(stft_distance(np.ones(10), np.zeros(10)))


@pytest.mark.parametrize("shapes", [((10,), (11,)), ((1, 10), (1, 10)), ((0,), (0,))])
def test_only_sounds_of_one_length_are_compared(shapes: tuple[tuple[int], tuple[int]]) -> None:
    with pytest.raises(InvalidInputError, match="one length"):
        stft_distance(*map(np.ones, shapes))


@pytest.mark.parametrize("at", [8000, 8064, 8128])
def test_what_griffin_lim_copies_stands_where_it_stood(at: int) -> None:
    samples = np.zeros(16_384, np.float32)
    samples[at : at + 32] = np.hanning(32)
    copy = griffin_lim(log_mel(samples, MEL), MEL)
    assert copy.shape == samples.shape
    energy = np.square(copy)
    assert energy @ np.arange(len(copy)) / energy.sum() == pytest.approx(at + 16, abs=32)


def test_a_shifted_copy_would_be_farther() -> None:
    time = np.arange(RATE) / RATE
    chirp = (0.5 * np.sin(2 * np.pi * (200 + 2000 * time) * time)).astype(np.float32)
    copy = copy_of(chirp)
    distances = {
        shift: stft_distance(chirp[2000:-2000], np.roll(copy, shift)[2000:-2000])
        for shift in (-256, -128, 0, 128, 256)
    }
    assert min(distances, key=lambda shift: distances[shift]) == 0


def test_griffin_lim_is_the_same_each_time() -> None:
    mel = log_mel(recording("perc_bell", 0.3), MEL)
    np.testing.assert_array_equal(griffin_lim(mel, MEL), griffin_lim(mel, MEL))
    assert not np.array_equal(griffin_lim(mel, MEL), griffin_lim(mel, MEL, seed=1))


def test_griffin_lim_endures_what_no_sound_could_be() -> None:
    assert np.isfinite(griffin_lim(np.full((80, 8), 60.0, np.float32), MEL)).all()
    with pytest.raises(InvalidInputError, match=r"\(79, 8\), not \(80, frames\)"):
        griffin_lim(np.zeros((79, 8), np.float32), MEL)


def test_a_melgan_is_judged_beside_griffin_lim_on_the_same_recordings() -> None:
    told: list[tuple[int, int]] = []
    settings = CopySynthesis(pictured=1)
    held_out = clips(6000, 3001)
    judgement = judge_melgan(
        generator(), held_out, settings, progress=lambda done, total: told.append((done, total))
    )
    assert told == [(0, 2), (1, 2), (2, 2)]
    assert set(judgement.figures) == {
        "mel_error",
        "stft_distance",
        "griffin_lim_mel_error",
        "griffin_lim_stft_distance",
    }
    figures = judgement.figures
    assert figures["stft_distance"] > 2 * figures["griffin_lim_stft_distance"] > 0
    assert figures["mel_error"] > 2 * figures["griffin_lim_mel_error"] > 0
    assert [[panel.mel.shape for panel in row] for row in judgement.rows] == [[(16, 94)]] * 3
    assert "held-out recordings: 2, 0.6 s" in judgement.remarks[0]
    again = judge_melgan(generator(), held_out, settings)
    assert again.figures == figures
    # By length, not by number.
    alone = [judge_melgan(generator(), [clip]).figures["mel_error"] for clip in held_out]
    assert figures["mel_error"] == pytest.approx(np.average(alone, weights=[6000, 3001]))


def test_a_sound_shorter_than_a_frame_can_be_judged_by() -> None:
    assert judge_melgan(generator(), clips(5)).figures["mel_error"] > 0


def test_a_melgan_that_diverged_is_told() -> None:
    diverged = generator()
    diverged.last.weight.fill_(float("nan"))
    with pytest.raises(InvalidInputError, match="diverged"):
        judge_melgan(diverged, clips(2000))


def test_excerpts_are_beginnings_taken_evenly_from_all() -> None:
    corpus = clips(*[2000] * 8, 500)
    taken = excerpts(corpus, 1000, seconds_each=1, seconds_in_all=4)
    assert [(clip.name, clip.samples.size) for clip in taken] == [
        ("0.wav", 1000),
        ("3.wav", 1000),
        ("5.wav", 1000),
        ("8.wav", 500),
    ]
    np.testing.assert_array_equal(taken[1].samples, corpus[3].samples[:1000])
    assert excerpts(corpus, 1000, seconds_each=9, seconds_in_all=99)[0].samples.size == 2000
    assert len(excerpts(corpus, 1000, seconds_each=9, seconds_in_all=0.001)) == 1
    with pytest.raises(InvalidInputError, match="no recordings"):
        excerpts([], 1000, seconds_each=1, seconds_in_all=1)
