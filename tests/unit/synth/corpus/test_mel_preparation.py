"""UNAGAN's mels: the same from a cache, in pieces or at once, and those of the clip."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from services.errors import InvalidInputError
from services.learning.array_cache import ArrayCache
from services.synth.corpus import mel_preparation
from services.synth.corpus.clips import Clip
from services.synth.corpus.mel_preparation import prepare_mels
from services.synth.mel import MelSettings, MelSpectrogram

MEL = MelSettings(sample_rate_hertz=8000, n_fft=256, hop_length=64, win_length=256, n_mels=20)


def _clip(size: int, name: str = "a.wav") -> Clip:
    random = np.random.default_rng(size)
    return Clip(name, random.uniform(-0.3, 0.2, size).astype(np.float32))


def _whole(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.no_grad():
        mel: NDArray[np.float32] = MelSpectrogram(MEL)(torch.from_numpy(samples)[None, None])[0]
    return np.asarray(mel)


def test_a_clip_is_heard_with_its_peak_at_one() -> None:
    clip = _clip(5000)
    (prepared,) = prepare_mels([clip], MEL, 10)
    np.testing.assert_array_equal(prepared.mel, _whole(clip.samples / np.abs(clip.samples).max()))
    np.testing.assert_allclose(prepared.mean, prepared.mel.mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(prepared.variance, prepared.mel.var(axis=1), rtol=1e-4)


@pytest.mark.parametrize("size", [1, 2, 63, 64, 65, 640, 641, 5000])
def test_every_length_gives_at_least_a_crop(size: int) -> None:
    (prepared,) = prepare_mels([_clip(size)], MEL, 10)
    assert prepared.mel.shape == (20, max(10, size // 64))
    assert np.isfinite(prepared.mel).all()


def test_a_short_clip_is_looped() -> None:
    clip = _clip(100)
    (prepared,) = prepare_mels([clip], MEL, 10)
    looped = np.resize(clip.samples / np.abs(clip.samples).max(), 640)
    np.testing.assert_array_equal(prepared.mel, _whole(looped))


@pytest.mark.parametrize("size", [64 * 40, 64 * 40 + 1, 64 * 41 + 63, 64 * 42, 64 * 100 + 30])
def test_pieces_of_a_long_clip_equal_the_whole(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    (whole,) = prepare_mels([_clip(size)], MEL, 10)
    monkeypatch.setattr(mel_preparation, "PIECE_FRAMES", 20)
    (pieces,) = prepare_mels([_clip(size)], MEL, 10)
    assert pieces.mel.shape == whole.mel.shape
    # A matrix product of another width may sum in another order.
    np.testing.assert_allclose(pieces.mel, whole.mel, atol=1e-5)
    np.testing.assert_allclose(pieces.mean, whole.mean, atol=1e-6)
    np.testing.assert_allclose(pieces.variance, whole.variance, atol=1e-6)


@pytest.mark.parametrize("size", [100, 5000, 64 * 100 + 30])
def test_mels_of_a_cache_are_those_without_one_to_the_last_bit(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mel_preparation, "PIECE_FRAMES", 30)
    (plain,) = prepare_mels([_clip(size)], MEL, 10)
    for _ in range(2):
        (cached,) = prepare_mels([_clip(size)], MEL, 10, cache=ArrayCache(tmp_path))
        np.testing.assert_array_equal(cached.mel, plain.mel)
        np.testing.assert_array_equal(cached.mean, plain.mean)
        np.testing.assert_array_equal(cached.variance, plain.variance)
        assert cached.mel.dtype == np.float32
        assert cached.mean.dtype == cached.variance.dtype == np.float64
    assert len(list(tmp_path.rglob("*.npy"))) == 1


def test_mels_are_made_once_and_again_for_other_clips_settings_and_crops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    original = MelSpectrogram.forward

    def counting(self: MelSpectrogram, audio: torch.Tensor) -> torch.Tensor:
        made.append(audio.shape)
        return original(self, audio)

    monkeypatch.setattr(MelSpectrogram, "forward", counting)
    cache = ArrayCache(tmp_path)
    prepare_mels([_clip(5000)], MEL, 10, cache=cache)
    prepare_mels([_clip(5000, "other name.wav")], MEL, 20, cache=cache)
    assert len(made) == 1
    prepare_mels([_clip(5001)], MEL, 10, cache=cache)
    assert len(made) == 2
    other = MelSettings(**{**MEL.to_config(), "n_mels": 21})
    prepare_mels([_clip(5000)], other, 10, cache=cache)
    assert len(made) == 3
    for frames in (10, 12, 10):
        (prepared,) = prepare_mels([_clip(100)], MEL, frames, cache=cache)
        assert prepared.mel.shape[1] == frames
    assert len(made) == 5


def test_parts_of_a_clip_have_mels_of_their_own(tmp_path: Path) -> None:
    whole = Clip("a.wav", _clip(5000).samples, origin="file")
    clips = [whole, whole.part(0, 3000), whole.part(3000, 5000)]
    cached = prepare_mels(clips, MEL, 10, cache=ArrayCache(tmp_path))
    plain = prepare_mels(clips, MEL, 10)
    for one, other in zip(cached, plain, strict=True):
        np.testing.assert_array_equal(one.mel, other.mel)


def test_a_silent_clip_is_named() -> None:
    silent = Clip("quiet.wav", np.zeros(5000, np.float32))
    with pytest.raises(InvalidInputError, match=r"quiet\.wav is silent"):
        prepare_mels([_clip(5000), silent], MEL, 10)


def test_progress_is_told() -> None:
    told: list[tuple[int, int]] = []
    prepare_mels([_clip(900), _clip(800)], MEL, 10, tell=lambda *each: told.append(each))
    assert told == [(1, 2), (2, 2)]
