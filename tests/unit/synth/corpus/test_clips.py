"""Clips: what may be learned from, its peak, its parts and what tells it from others."""

import numpy as np
import pytest
from numpy.typing import NDArray

from services.errors import InvalidInputError
from services.synth.corpus import clips
from services.synth.corpus.clips import Clip, split_clips


def _noise(size: int) -> NDArray[np.float32]:
    return np.random.default_rng(size).uniform(-0.5, 0.4, size).astype(np.float32)


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(0, np.float32),
        np.zeros((2, 2), np.float32),
        np.zeros(5, np.float64),
        np.array([0, np.nan, 0.5], np.float32),
        np.array([0, -np.inf], np.float32),
    ],
)
def test_what_is_no_mono_sound_is_named(samples: NDArray[np.float32]) -> None:
    with pytest.raises(InvalidInputError, match=r"odd\.wav"):
        Clip("odd.wav", samples)


def test_the_peak_is_that_of_all_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = _noise(1000)
    samples[[0, 500, -1]] = 0.6, -0.7, 0.65
    assert Clip("a.wav", samples).peak == np.float32(0.7)
    monkeypatch.setattr(clips, "BLOCK_SAMPLES", 300)
    assert Clip("a.wav", samples).peak == np.float32(0.7)
    samples[100] = np.nan
    with pytest.raises(InvalidInputError, match="not finite"):
        Clip("a.wav", samples)


def test_a_part_has_its_own_peak_and_identity() -> None:
    samples = _noise(1000)
    samples[10] = 0.9
    for origin in ("", "file"):
        whole = Clip("a.wav", samples, origin)
        head, tail = whole.part(0, 500), whole.part(500, 1000)
        np.testing.assert_array_equal(np.concatenate([head.samples, tail.samples]), samples)
        assert head.name == tail.name == "a.wav"
        assert head.peak == np.float32(0.9)
        assert tail.peak <= 0.5
        assert len({whole.identity, head.identity, tail.identity}) == 3
        assert whole.part(0, 500).identity == head.identity
        assert head.part(0, 100).identity != whole.part(100, 200).identity


def test_clips_of_unknown_origin_are_told_apart_by_their_samples() -> None:
    assert Clip("a.wav", _noise(10)).identity == Clip("b.wav", _noise(10)).identity
    assert Clip("a.wav", _noise(10)).identity != Clip("a.wav", _noise(11)).identity


def test_the_end_of_a_single_file_is_kept_back_as_a_part_of_it() -> None:
    clip = Clip("a.wav", _noise(1000), "file")
    (training,), (validation,) = split_clips([clip], 0.1, seed=0)
    assert training.samples.size == 900
    assert validation.samples.size == 100
    assert training.identity != validation.identity
