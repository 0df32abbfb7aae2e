import io
import os
from pathlib import Path

import numpy as np
import pytest

from services.audio.writing import Encoding, write_audio
from services.cli.corpus import fingerprint, readable, recordings
from services.errors import InvalidInputError, NotFoundError
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


def test_what_cannot_be_read_is_named_and_the_rest_comes_mono_at_the_rate(tmp_path: Path) -> None:
    stereo = np.stack([np.full(2000, 0.5), np.full(2000, 0.1)], axis=1).astype(np.float32)
    (tmp_path / "fine.wav").write_bytes(wav(stereo, 22050))
    (tmp_path / "broken.wav").write_text("no sound")
    said: list[str] = []
    ((recording, samples),) = readable(recordings(tmp_path), 44100, said.append)
    assert recording.name == "fine.wav"
    assert samples.shape == (4000,)
    assert samples[2000] == pytest.approx(0.3, abs=0.01)
    assert len(said) == 1
    assert "broken.wav" in said[0]


def test_a_folder_of_which_nothing_can_be_read_is_refused(tmp_path: Path) -> None:
    place(tmp_path, "broken.wav")
    with pytest.raises(InvalidInputError):
        list(readable(recordings(tmp_path), 44100, lambda _: None))
