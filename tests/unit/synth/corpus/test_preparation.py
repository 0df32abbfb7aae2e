"""Preparation: recordings become clips, once, whatever lies in the folder."""

import hashlib
import io
import multiprocessing
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
from numpy.typing import NDArray

from services.audio.reading import read_audio
from services.audio.resampling import resample, to_mono
from services.audio.writing import Encoding, write_audio
from services.errors import ConflictError, InvalidInputError, UnreadableAudioError
from services.learning.array_cache import ArrayCache
from services.synth.corpus.clips import Clip
from services.synth.corpus.preparation import prepare_clips

RATE = 22050


@dataclass
class Recording:
    """A file in memory, and how often it was opened."""

    name: str
    content: bytes
    opened: int = 0

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    def open(self) -> BinaryIO:
        self.opened += 1
        return io.BytesIO(self.content)


def _recording(
    name: str, seconds: float = 0.1, rate: int = RATE, channels: int = 1, peak: float = 0.5
) -> Recording:
    random = np.random.default_rng([ord(each) for each in name])
    samples = random.uniform(-peak, peak, (max(1, round(seconds * rate)), channels))
    return _of(name, samples.astype(np.float32), rate)


def _of(name: str, samples: NDArray[np.float32], rate: int = RATE) -> Recording:
    content = io.BytesIO()
    write_audio(content, samples, rate, Encoding.WAV_FLOAT)
    return Recording(name, content.getvalue())


def _plainly(recording: Recording) -> NDArray[np.float32]:
    sound = read_audio(recording.open(), name=recording.name)
    mono = to_mono(sound.samples)[:, None]
    return resample(mono, sound.sample_rate_hertz, RATE)[:, 0].clip(-1, 1)


@pytest.mark.parametrize("keeps", [True, False])
@pytest.mark.parametrize("workers", [1, 3])
def test_clips_are_mono_at_the_rate_in_the_order_of_their_sources(
    tmp_path: Path, keeps: bool, workers: int
) -> None:
    sources = [
        _recording("long.wav", 4, 48000, 2),
        _recording("b.wav"),
        _recording("a.wav", 1, 8000),
        _recording("loud.wav", peak=1.5),
    ]
    cache = ArrayCache(tmp_path if keeps else None)
    clips = prepare_clips(sources, RATE, cache=cache, workers=workers)
    assert [clip.name for clip in clips] == ["long.wav", "b.wav", "a.wav", "loud.wav"]
    for clip, source in zip(clips, sources, strict=True):
        np.testing.assert_array_equal(clip.samples, _plainly(source))
        assert clip.peak == np.abs(clip.samples).max()
        assert not clip.samples.flags.writeable
    assert clips[3].peak == 1


def test_a_recording_is_decoded_once_for_each_content_and_rate(tmp_path: Path) -> None:
    source = _recording("a.wav")
    first = prepare_clips([source], RATE, cache=ArrayCache(tmp_path))
    again = prepare_clips([source], RATE, cache=ArrayCache(tmp_path))
    assert source.opened == 1
    np.testing.assert_array_equal(first[0].samples, again[0].samples)
    assert (first[0].peak, first[0].identity) == (again[0].peak, again[0].identity)
    (renamed,) = prepare_clips(
        [Recording("b.wav", source.content)], RATE, cache=ArrayCache(tmp_path)
    )
    assert renamed.name == "b.wav"
    other = _recording("other.wav")
    prepare_clips([source, other], 8000, cache=ArrayCache(tmp_path))
    assert source.opened == 2
    assert other.opened == 1


def test_clips_of_other_contents_and_rates_have_other_identities(tmp_path: Path) -> None:
    sources = [_recording("a.wav"), _recording("b.wav")]
    clips = [
        clip
        for rate in (RATE, 8000)
        for clip in prepare_clips(sources, rate, cache=ArrayCache(tmp_path))
    ]
    assert len({clip.identity for clip in clips}) == 4


def test_a_damaged_cache_is_mended(tmp_path: Path) -> None:
    source = _recording("a.wav")
    prepare_clips([source], RATE, cache=ArrayCache(tmp_path))
    (entry,) = tmp_path.rglob("*.npy")
    content = bytearray(entry.read_bytes())
    content[len(content) // 2] ^= 4
    entry.write_bytes(content)
    (clip,) = prepare_clips([source], RATE, cache=ArrayCache(tmp_path))
    assert source.opened == 2
    np.testing.assert_array_equal(clip.samples, _plainly(source))


def _truncated() -> bytes:
    return _recording("a.wav").content[:-100]


def _not_finite() -> bytes:
    half, nan = np.float32(0.5).tobytes(), np.float32(np.nan).tobytes()
    return _of("a.wav", np.full((9, 1), 0.5, np.float32)).content.replace(half, nan)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is empty"),
        (b"no sound at all", "cannot be decoded"),
        (_truncated(), "is truncated"),
        (_of("a", np.zeros((1, 1), np.float32), 10).content, "claims a rate of 10 Hz"),
        (_not_finite(), "not finite"),
        (_of("a", np.zeros((500, 2), np.float32)).content, "is silent"),
    ],
)
def test_what_cannot_be_learned_from_is_named_and_left_out(content: bytes, why: str) -> None:
    said: list[str] = []
    sources = [_recording("a.wav"), Recording("odd.wav", content), _recording("b.wav")]
    clips = prepare_clips(sources, RATE, warn=said.append)
    assert [clip.name for clip in clips] == ["a.wav", "b.wav"]
    (line,) = said
    assert "odd.wav" in line
    assert why in line


def test_a_copy_is_named_and_left_out_so_that_it_judges_nothing() -> None:
    said: list[str] = []
    source = _recording("a.wav")
    copies = [source, _recording("b.wav"), Recording("copy.wav", source.content)]
    clips = prepare_clips(copies, RATE, warn=said.append)
    assert [clip.name for clip in clips] == ["a.wav", "b.wav"]
    assert said == ["left out: copy.wav is a copy of a.wav"]


@pytest.mark.parametrize(
    "sources",
    [
        [],
        [Recording("a.wav", b"")],
        [_of("a.wav", np.zeros((500, 2), np.float32)), _of("b.wav", np.zeros((50, 1), np.float32))],
    ],
)
def test_a_corpus_of_which_nothing_is_left_is_refused(sources: list[Recording]) -> None:
    with pytest.raises(InvalidInputError, match="unreadable or silent"):
        prepare_clips(sources, RATE)


@pytest.mark.parametrize(("rate", "samples"), [(8000, 1), (RATE, 1), (48000, 3)])
def test_a_sound_of_almost_nothing_is_enough(rate: int, samples: int, tmp_path: Path) -> None:
    source = _of("a.wav", np.full((samples, 1), 0.5, np.float32), rate)
    (clip,) = prepare_clips([source], RATE, cache=ArrayCache(tmp_path))
    np.testing.assert_array_equal(clip.samples, _plainly(source))


def test_a_recording_that_changes_while_it_is_read_is_named_and_not_kept(tmp_path: Path) -> None:
    class Changing(Recording):
        def open(self) -> BinaryIO:
            return io.BytesIO(_recording("another").content)

    source = Changing("a.wav", _recording("a.wav").content)
    with pytest.raises(ConflictError, match=r"a\.wav was changed"):
        prepare_clips([source], RATE, cache=ArrayCache(tmp_path))
    assert not list(tmp_path.rglob("*.npy"))


def test_an_error_of_a_source_stops_the_others(tmp_path: Path) -> None:
    class Broken(Recording):
        def open(self) -> BinaryIO:
            raise ConflictError("the store is broken")

    later = [_recording(f"{number}.wav") for number in range(200)]
    with pytest.raises(ConflictError, match="the store is broken"):
        prepare_clips([Broken("a.wav", b"x"), *later], RATE, cache=ArrayCache(tmp_path), workers=1)
    assert sum(source.opened for source in later) < 200


def test_an_interruption_stops_what_is_being_read_and_the_rest(tmp_path: Path) -> None:
    interrupted = threading.Event()

    def tell(done: int, total: int) -> None:
        interrupted.set()
        raise KeyboardInterrupt(done, total)

    class Waiting(Recording):
        def open(self) -> BinaryIO:
            assert interrupted.wait(timeout=60)
            return super().open()

    long = Waiting("long.wav", _recording("long.wav", 300, 8000).content)
    short = [_recording(f"{number}.wav") for number in range(100)]
    with pytest.raises(KeyboardInterrupt):
        prepare_clips([long, *short], RATE, cache=ArrayCache(tmp_path), workers=2, tell=tell)
    assert long.opened == 1
    assert sum(source.opened for source in short) < 100
    kept = [path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()]
    assert kept
    assert max(kept) < 100_000


def test_a_file_that_is_gone_is_left_out() -> None:
    class Gone(Recording):
        def open(self) -> BinaryIO:
            raise UnreadableAudioError("a.wav cannot be opened")

    said: list[str] = []
    prepare_clips([Gone("a.wav", b"x"), _recording("b.wav")], RATE, warn=said.append)
    assert said == ["left out: a.wav cannot be opened"]


def test_progress_is_told_in_the_callers_thread() -> None:
    told: list[tuple[int, int]] = []
    threads = set()

    def tell(done: int, total: int) -> None:
        told.append((done, total))
        threads.add(threading.current_thread())

    prepare_clips([_recording(f"{n}.wav") for n in range(5)], RATE, tell=tell, workers=3)
    assert told == [(done, 5) for done in range(1, 6)]
    assert threads == {threading.current_thread()}


def _prepared_elsewhere(folder: Path, sources: list[Recording]) -> list[tuple[str, bytes]]:
    clips = prepare_clips(sources, RATE, cache=ArrayCache(folder))
    return [(clip.name, clip.samples.tobytes()) for clip in clips]


def test_two_processes_that_prepare_the_same_at_once_get_the_same(tmp_path: Path) -> None:
    sources = [_recording(f"{n}.wav", 0.5, 48000) for n in range(12)]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        answers = pool.starmap(_prepared_elsewhere, [(tmp_path, sources)] * 2, chunksize=1)
    expected = [(each.name, _plainly(each).tobytes()) for each in sources]
    assert answers == [expected, expected]
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 12


def test_memory_is_that_of_blocks_where_clips_are_kept_in_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As long as any sound that comes as a whole is an error, so is a corpus that sits in memory.
    largest: list[int] = []
    original: Callable[[NDArray[np.float32]], NDArray[np.float32]] = to_mono

    def watched(samples: NDArray[np.float32]) -> NDArray[np.float32]:
        largest.append(len(samples))
        return original(samples)

    monkeypatch.setattr("services.synth.corpus.preparation.to_mono", watched)
    (clip,) = prepare_clips(
        [_recording("a.wav", 20, 48000)], RATE, cache=ArrayCache(tmp_path), workers=1
    )
    assert max(largest) <= 65_536
    assert isinstance(clip, Clip)
    assert isinstance(clip.samples.base, np.memmap)
