import json
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch

from services.errors import InvalidInputError, SettingsMismatchError
from services.learning.precision import Compute, Precision
from services.synth.corpus.clips import Clip, split_clips
from services.synth.mel import MelSettings
from services.synth.melgan.discriminator import DiscriminatorSettings
from services.synth.melgan.generator import MelGanSettings, Variant, load_generator, vocode
from services.synth.melgan.training import MelGanTrainer
from services.synth.melgan.training_settings import MelGanTraining

MEL = MelSettings(sample_rate_hertz=8000, n_fft=256, hop_length=64, win_length=256, n_mels=16)
TINY = MelGanTraining(
    generator=MelGanSettings(variant="gru", ngf=4, n_residual_layers=1, ratios=(8, 8), mel=MEL),
    discriminator=DiscriminatorSettings(ndf=2, n_layers=2, max_channels=8),
    batch_size=3,
    crop_samples=1536,
)


def tone(name: str, seconds: float = 1.0, frequency: float = 440.0) -> Clip:
    time = np.arange(round(8000 * seconds)) / 8000
    return Clip(name, (0.5 * np.sin(2 * np.pi * frequency * time)).astype(np.float32))


def trainer(settings: MelGanTraining = TINY, clips: list[Clip] | None = None) -> MelGanTrainer:
    clips = clips or [tone(f"{n}.wav", frequency=220.0 * n) for n in range(1, 5)]
    return MelGanTrainer(settings, clips, device="cpu", seed=7)


def test_a_step_moves_generator_and_discriminator_and_reports_published_losses() -> None:
    training = trainer()
    before = [
        [parameter.detach().clone() for parameter in module.parameters()]
        for module in (training.generator, training.discriminator)
    ]
    losses = training.step()
    assert set(losses) == {
        *("discriminator", "generator", "feature_matching"),
        *("gradient_norm/discriminator", "gradient_norm/generator", "learning_rate"),
    }
    assert losses["learning_rate"] == pytest.approx(TINY.learning_rate)
    assert all(loss.ndim == 0 and not loss.requires_grad for loss in losses.values())
    for old, module in zip(before, (training.generator, training.discriminator), strict=True):
        moved = [not torch.equal(a, b) for a, b in zip(old, module.parameters(), strict=True)]
        assert any(moved)


def test_training_lowers_the_mel_error_of_sound_kept_back() -> None:
    settings = replace(
        TINY, learning_rate=2e-3, stft_weight=1.0, mel_weight=1.0, adversarial_from_step=1000
    )
    training = trainer(settings)
    before = training.validate()["mel_error"]
    for _ in range(60):
        losses = training.step()
    assert "mel_reconstruction" in losses
    assert "generator" not in losses
    assert training.validate()["mel_error"] < 0.7 * before


def test_weights_fitted_to_the_data_start_centred_and_as_loud_as_the_data() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    clips = [Clip("noise.wav", noise), tone("tone.wav"), tone("low.wav", frequency=100.0)]
    plain, fitted = trainer(TINY, clips), trainer(replace(TINY, fit_to_data=True), clips)
    crops = plain.batches.crops(0)
    mel = plain.mel(crops)
    loudness = crops.square().mean().sqrt()
    with torch.no_grad():
        inner = fitted.generator.first(mel)
        sound = fitted.generator(mel).square().mean().sqrt()
        assert abs(plain.generator.first(mel).mean()) > 0.1
    assert torch.allclose(inner.mean(dim=(0, 2)), torch.zeros(inner.shape[1]), atol=1e-3)
    assert torch.allclose(inner.std(dim=(0, 2)), torch.ones(inner.shape[1]), atol=1e-2)
    assert float(sound) == pytest.approx(float(loudness), rel=0.3)


def test_silence_leaves_fitted_weights_finite() -> None:
    clips = [Clip("silence.wav", np.zeros(8000, np.float32))]
    training = trainer(replace(TINY, fit_to_data=True, stft_weight=1.0), clips)
    training.step()
    assert all(torch.isfinite(p).all() for p in training.generator.parameters())
    assert all(p.abs().max() < 100 for p in training.generator.parameters())


def test_the_discriminator_is_asked_from_its_step_on() -> None:
    training = trainer(replace(TINY, stft_weight=1.0, adversarial_from_step=1))
    assert "discriminator" not in training.step()
    assert {"discriminator", "stft"} <= set(training.step())


def test_the_same_seed_gives_the_same_course_whatever_the_global_state() -> None:
    torch.manual_seed(1)
    first = trainer()
    torch.manual_seed(2)
    state = torch.random.get_rng_state()
    second = trainer()
    for _ in range(2):
        one, other = first.step(), second.step()
    assert one == other
    assert first.weights() == second.weights()
    assert torch.equal(torch.random.get_rng_state(), state)


def test_no_two_steps_have_the_same_crops() -> None:
    training = trainer(clips=[tone("one.wav", 4.0, 37.1), tone("two.wav", 4.0, 53.3)])
    drawn = [training.batches.crops(step) for step in range(50)]
    assert len({crops.numpy().tobytes() for crops in drawn}) == len(drawn)
    assert torch.equal(training.batches.crops(3), drawn[3])


def test_a_crop_is_a_piece_of_its_clip_and_every_clip_is_heard() -> None:
    clips = [tone(f"{n}.wav", 0.5, 100.0 * n) for n in range(1, 9)]
    training = trainer(clips=clips)
    pieces = np.concatenate([training.batches.crops(step).numpy()[:, 0] for step in range(60)])
    heard = set()
    for piece in pieces:
        windows = {
            clip.name: np.lib.stride_tricks.sliding_window_view(clip.samples, piece.size)
            for clip in training.training_clips
        }
        names = [name for name, all_ in windows.items() if (all_ == piece).all(axis=1).any()]
        assert names
        heard.update(names)
    assert heard == {clip.name for clip in training.training_clips}


@pytest.mark.parametrize(
    "clips",
    [
        [tone("one.wav")],
        [tone("short.wav", 0.01)],
        [Clip("sample.wav", np.zeros(1, np.float32))],
        [Clip("silence.wav", np.zeros(8000, np.float32)), tone("tone.wav", 0.02)],
    ],
)
def test_few_short_and_silent_clips_can_be_learnt(clips: list[Clip]) -> None:
    training = trainer(replace(TINY, stft_weight=1.0, mel_weight=1.0), clips)
    losses = training.step()
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert np.isfinite(training.validate()["mel_error"])
    assert all(torch.isfinite(p).all() for p in training.generator.parameters())


def test_no_clips_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="no recordings"):
        MelGanTrainer(TINY, [], device="cpu", seed=0)


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros((2, 8), np.float32),
        np.zeros(8, np.float64),
        np.zeros(0, np.float32),
        np.array([0, np.nan], np.float32),
    ],
)
def test_a_clip_that_is_no_mono_sound_is_refused_by_name(samples: np.ndarray) -> None:  # type: ignore[type-arg]
    with pytest.raises(InvalidInputError, match=r"odd\.wav"):
        Clip("odd.wav", samples)


@pytest.mark.parametrize("files", [2, 3, 20])
@pytest.mark.parametrize("share", [0.01, 0.1, 0.9])
def test_files_are_kept_back_whole_and_neither_side_is_empty(files: int, share: float) -> None:
    clips = [tone(f"{n % files}.wav", 0.01) for n in range(2 * files)]
    training, validation = split_clips(clips, share, seed=3)
    assert len(training) + len(validation) == len(clips)
    assert training
    assert validation
    assert not {clip.name for clip in training} & {clip.name for clip in validation}
    assert split_clips(clips, share, seed=3)[1] == validation


def test_another_seed_keeps_other_files_back() -> None:
    clips = [tone(f"{n}.wav", 0.01) for n in range(30)]
    drawn = {tuple(c.name for c in split_clips(clips, 0.1, seed)[1]) for seed in range(5)}
    assert len(drawn) > 1


def test_of_a_single_file_the_end_is_kept_back() -> None:
    clip = tone("only.wav")
    (training,), (validation,) = split_clips([clip], 0.1, seed=0)
    assert np.array_equal(np.concatenate([training.samples, validation.samples]), clip.samples)
    assert validation.samples.size == 800


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0])
def test_a_share_that_leaves_one_side_empty_is_refused(share: float) -> None:
    with pytest.raises(InvalidInputError, match="share"):
        split_clips([tone("a.wav"), tone("b.wav")], share, seed=0)


def test_what_was_trained_can_be_loaded_and_says_where_it_comes_from() -> None:
    training = trainer()
    training.step()
    config = json.loads(json.dumps(training.config()))
    generator, settings = load_generator(config, training.weights())
    assert settings == TINY.generator
    assert config["family"] == "melgan"
    assert config["variant"] == "gru"
    assert config["training"]["steps"] == 1
    assert config["statistics"]["files"] == 4
    assert config["statistics"]["seconds"] == pytest.approx(4.0)
    mel = torch.randn(1, 16, 10)
    assert torch.allclose(vocode(generator, mel), vocode(training.generator, mel), atol=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        {"batch_size": 0},
        {"crop_samples": 0},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"betas": (0.5, 1.0)},
        {"schedule": "steps"},
        {"learning_rate_floor": 1.0},
        {"average_decay": -0.1},
        {"max_gradient_norm": -1.0},
        {"feature_weight": -1.0},
        {"mel_weight": -1.0},
        {"stft_weight": -1.0},
        {"adversarial_from_step": -1},
        {"validation_seconds": 0.0},
    ],
    ids=str,
)
def test_a_value_that_cannot_be_is_refused_by_its_name(change: dict[str, Any]) -> None:
    ((name, value),) = change.items()
    with pytest.raises(InvalidInputError, match=name) as refused:
        replace(TINY, **change)
    assert str(value) in refused.value.message
    assert refused.value.culprit == name
    assert not isinstance(refused.value, SettingsMismatchError)


@pytest.mark.parametrize(
    ("change", "culprit"),
    [
        ({"crop_samples": 1000}, "crop_samples"),
        ({"crop_samples": 64}, "crop_samples"),
        ({"adversarial_from_step": 5}, "adversarial_from_step"),
        ({"schedule": "cosine"}, "steps"),
    ],
)
def test_values_that_cannot_work_together_are_refused(change: dict[str, Any], culprit: str) -> None:
    with pytest.raises(SettingsMismatchError) as refused:
        replace(TINY, **change)
    assert refused.value.culprit == culprit


@pytest.mark.parametrize("variant", ["original", "gru"])
@pytest.mark.parametrize("compute", ["bf16", "fp16"])
def test_half_precision_learns_much_the_same_in_float32_weights(
    compute: Compute, variant: Variant
) -> None:
    settings = replace(
        TINY,
        generator=replace(TINY.generator, variant=variant),
        mel_weight=1.0,
        stft_weight=1.0,
        precision=Precision(compute=compute),
    )
    half, whole = trainer(settings), trainer(replace(settings, precision=Precision()))
    for _ in range(2):
        rough, exact = half.step(), whole.step()
    assert {value.dtype for value in rough.values()} == {torch.float32}
    for name in ("discriminator", "generator", "feature_matching", "mel_reconstruction", "stft"):
        assert float(rough[name]) == pytest.approx(float(exact[name]), rel=0.05, abs=0.01), name
    for network in (half.generator, half.discriminator):
        assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


def test_the_files_kept_back_and_all_settings_are_in_the_config() -> None:
    training = trainer()
    recorded = training.config()["training"]
    assert recorded["validation_files"] == [clip.name for clip in training.validation_clips]
    assert Precision(**recorded["precision"]) == TINY.precision
    assert recorded["seed"] == 7
    assert {field.name for field in fields(TINY)} - {"generator"} <= set(recorded)


def test_waiting_for_crops_is_counted_also_over_a_pause() -> None:
    training = trainer()
    training.step()
    waited = training.waited_seconds
    assert waited > 0
    training.close()
    assert training.waited_seconds == waited
    training.step()
    assert training.waited_seconds > waited
