import io
import os
from pathlib import Path

import numpy as np
import pytest

from services.audio.writing import Encoding, write_audio
from services.cli.corpus import (
    database_corpus,
    fingerprint,
    folder_corpus,
    prepared,
    recordings,
)
from services.cli.progress import Reporter
from services.errors import (
    CorruptObjectError,
    InvalidInputError,
    NotFoundError,
    ObjectKeyError,
    UnreadableAudioError,
)
from services.learning.array_cache import ArrayCache
from services.runtime.object_store.folder import FolderStore
from services.runtime.object_store.port import checked_key


def place(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return folder


def wav(samples: np.ndarray, rate: int) -> bytes:
    content = io.BytesIO()
    write_audio(content, samples, rate, Encoding.WAV_FLOAT)
    return content.getvalue()


def test_sounds_are_found_by_extension_whatever_its_case_and_in_any_depth(tmp_path: Path) -> None:
    place(tmp_path, "b.WAV", "a.flac", "in/deep/c.Mp3", "d.ogg", "notes.txt", "cover.png")
    assert [recording.name for recording in recordings(tmp_path)] == [
        "a.flac",
        "b.WAV",
        "d.ogg",
        "in - deep - c.Mp3",
    ]


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    place(tmp_path, "a.wav", "._a.wav", ".trash/b.wav", "in/.c.wav")
    assert [recording.name for recording in recordings(tmp_path)] == ["a.wav"]


def test_names_stay_as_people_wrote_them(tmp_path: Path) -> None:
    place(tmp_path, "Schläge, leise.wav", "鳥 🐦.wav")
    assert {each.name for each in recordings(tmp_path)} == {"Schläge, leise.wav", "鳥 🐦.wav"}


def test_names_that_collide_are_numbered(tmp_path: Path) -> None:
    place(tmp_path, "a/b.wav", "a - b.wav", "a - b (2).wav")
    found = {recording.name: recording.path.read_text() for recording in recordings(tmp_path)}
    assert len(found) == 3
    assert set(found.values()) == {"a/b.wav", "a - b.wav", "a - b (2).wav"}


def test_names_that_cannot_be_stored_are_replaced_by_like_ones(tmp_path: Path) -> None:
    names = [
        "AC\\DC.wav",
        "AC_DC.wav",
        "a\nb.WAV",
        f"{'鳥' * 83}.wav",
        "deep/" + "x" * 250 + ".mp3",
    ]
    names.append(os.fsdecode(b"caf\xe9.wav"))
    place(tmp_path, *names[:-1])
    (tmp_path / names[-1]).write_bytes(b"latin")
    found = [recording.name for recording in recordings(tmp_path)]
    assert len(set(found)) == len(names)
    assert "AC_DC.wav" in found
    assert sorted(Path(name).suffix for name in found) == sorted(
        Path(name).suffix for name in names
    )
    for name in found:
        assert checked_key(f"audio/database/{name}").count("/") == 2
        assert len(name.encode()) <= 250
    assert found == [recording.name for recording in recordings(tmp_path)]
    assert len(fingerprint(recordings(tmp_path))) == 64


@pytest.mark.parametrize("name", ["nowhere", "empty", "file.wav"])
def test_a_folder_without_sounds_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    place(tmp_path, "file.wav", "empty/notes.txt")
    with pytest.raises(NotFoundError, match=name):
        recordings(tmp_path / name)


def test_a_fingerprint_follows_names_and_contents_but_not_the_place(tmp_path: Path) -> None:
    one = place(tmp_path / "one", "a.wav", "b.wav")
    two = place(tmp_path / "two", "a.wav", "b.wav")
    assert fingerprint(recordings(one)) == fingerprint(recordings(two))
    (two / "b.wav").write_bytes(b"other")
    assert fingerprint(recordings(one)) != fingerprint(recordings(two))
    (one / "b.wav").rename(one / "c.wav")
    (two / "b.wav").write_bytes(b"b.wav")
    assert fingerprint(recordings(one)) != fingerprint(recordings(two))


def test_descriptor_files_are_found_where_they_are_wanted(tmp_path: Path) -> None:
    place(tmp_path, "a.wav", "a.wav.json", "in/b.JSON", ".c.json")
    assert [each.name for each in recordings(tmp_path)] == ["a.wav"]
    corpus = folder_corpus(tmp_path, descriptors=True)
    assert [each.name for each in corpus.recordings] == ["a.wav", "a.wav.json", "in - b.JSON"]
    assert corpus.fingerprint != folder_corpus(tmp_path).fingerprint


def test_a_folder_without_descriptors_says_that_there_could_be_some(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"neither sound nor descriptor.*\.wav.*\.json"):
        folder_corpus(tmp_path, descriptors=True)


class Heard(Reporter):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.updates: list[tuple[str, int, int]] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def update(self, name: str, completed: int, total: int, note: str = "") -> None:  # noqa: ARG002
        self.updates.append((name, completed, total))


def noise(seed: int, rate: int = 22050) -> bytes:
    samples = np.random.default_rng(seed).uniform(-0.5, 0.5, (2000, 2)).astype(np.float32)
    return wav(samples, rate)


def both(tmp_path: Path) -> tuple[Path, FolderStore]:
    """The same recordings in a folder and as an audio database."""
    folder = tmp_path / "forest"
    folder.mkdir()
    store = FolderStore(tmp_path / "store")
    for name, content in [("b.wav", noise(1)), ("a.wav", noise(2, 48000)), ("odd.wav", b"no")]:
        (folder / name).write_bytes(content)
        store.put_new(f"audio/forest/{name}", content)
    return folder, store


def test_a_database_is_the_same_corpus_as_its_folder(tmp_path: Path) -> None:
    folder, store = both(tmp_path)
    one, two = folder_corpus(folder), database_corpus(store, "forest")
    assert one.name == two.name == "forest"
    assert str(folder) in one.place
    assert "forest" in two.place
    assert one.fingerprint == two.fingerprint
    assert [each.name for each in two.recordings] == ["a.wav", "b.wav", "odd.wav"]
    heard = Heard()
    first = prepared(one, 44100, ArrayCache(None), heard)
    second = prepared(two, 44100, ArrayCache(None), heard)
    for clip, other in zip(first, second, strict=True):
        assert clip.name == other.name
        np.testing.assert_array_equal(clip.samples, other.samples)
    assert len(heard.said) == 2
    assert all("odd.wav" in line for line in heard.said)
    assert heard.updates[:3] == [("preparing recordings", done, 3) for done in (1, 2, 3)]


def test_a_database_finds_in_the_cache_what_its_folder_prepared(tmp_path: Path) -> None:
    folder, store = both(tmp_path)
    cache = ArrayCache(tmp_path / "cache")
    prepared(folder_corpus(folder), 44100, cache, Heard())
    entries = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.npy")}
    prepared(database_corpus(store, "forest"), 44100, cache, Heard())
    assert len(entries) == 2
    assert entries == {
        path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.npy")
    }


def test_only_the_sounds_of_this_database_belong_to_it(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    for key in ["one/a.wav", "one/notes.txt", "one/deep/b.wav", "one-more/c.wav", "two/d.wav"]:
        store.put(f"audio/{key}", noise(1))
    assert [each.name for each in database_corpus(store, "one").recordings] == ["a.wav"]


def test_a_database_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    with pytest.raises(NotFoundError, match=r"'one'.*none"):
        database_corpus(store, "one")
    for number in range(12):
        store.put(f"audio/wood-{number:02}/a.wav", noise(1))
    with pytest.raises(NotFoundError, match=r"'wood'.*wood-00, wood-01.*wood-09, …") as told:
        database_corpus(store, "wood")
    assert told.value.culprit == "wood"


@pytest.mark.parametrize("name", ["", "..", "a//b"])
def test_a_name_that_no_database_can_have_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ObjectKeyError):
        database_corpus(FolderStore(tmp_path), name)


def test_a_damaged_file_of_a_database_is_named(tmp_path: Path) -> None:
    _, store = both(tmp_path)
    corpus = database_corpus(store, "forest")
    path = next((tmp_path / "store").rglob("b.wav"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    with pytest.raises(CorruptObjectError, match=r"b\.wav"):
        prepared(corpus, 44100, ArrayCache(None), Heard())


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    folder, _ = both(tmp_path)
    corpus = folder_corpus(folder)
    (folder / "a.wav").unlink()
    with pytest.raises(UnreadableAudioError, match=r"a\.wav cannot be opened"):
        _ = corpus.fingerprint
    assert [clip.name for clip in prepared(corpus, 44100, ArrayCache(None), Heard())] == ["b.wav"]


def test_a_folder_of_silence_is_refused_and_each_file_named(tmp_path: Path) -> None:
    heard = Heard()
    for name in ("a.wav", "b.wav"):
        (tmp_path / name).write_bytes(wav(np.zeros((5000, 1), np.float32), 22050))
    with pytest.raises(InvalidInputError, match="silent"):
        prepared(folder_corpus(tmp_path), 44100, ArrayCache(None), heard)
    assert heard.said == ["left out: a.wav is silent", "left out: b.wav is silent"]
