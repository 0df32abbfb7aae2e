"""What a predictor learns from: described once, named when left out, never a prediction."""

import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from services.audio.track import DescriptorTrack
from services.audio.track_json import write_tracks
from services.audio.writing import Encoding, write_audio
from services.cli.corpus import Recording, folder_corpus
from services.cli.progress import Reporter
from services.cli.training.families import Site, make
from services.cli.training.tracks import described
from services.descriptor.extraction import extract_file
from services.descriptor.mfcc import FEATURE_NAMES, ExtractionSettings
from services.errors import ConflictError, InvalidInputError
from services.learning.array_cache import ArrayCache
from services.learning.world import World
from services.predictor.training.settings import PredictorTraining
from tests.unit.learning.processes import together

RATE = 44_100
GOLDEN = Path(__file__).parents[3] / "golden"


class Heard(Reporter):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.updates: list[tuple[str, int, int]] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def update(self, name: str, completed: int, total: int, note: str = "") -> None:  # noqa: ARG002
        self.updates.append((name, completed, total))


def noise(seed: int, seconds: float = 0.5) -> bytes:
    samples = np.random.default_rng(seed).uniform(-0.5, 0.5, (round(seconds * RATE), 1))
    return wav(samples.astype(np.float32))


def wav(samples: np.ndarray) -> bytes:
    content = io.BytesIO()
    write_audio(content, samples, RATE, Encoding.WAV_FLOAT)
    return content.getvalue()


def track(
    source: str, seed: int = 0, frames: int = 30, rate: int = RATE, hop: int = 1024
) -> DescriptorTrack:
    values = np.random.default_rng(seed).normal(0, 10, (frames, 39)).astype(np.float32)
    return DescriptorTrack(FEATURE_NAMES, values, rate, hop, source)


def published(*tracks: DescriptorTrack) -> bytes:
    """Rows of all tracks mixed, as in published databases: first frames first."""
    rows = [
        (frame * each.hop_length_samples, each.source, each.values[frame])
        for frame in range(max(each.frame_count for each in tracks))
        for each in tracks
        if frame < each.frame_count
    ]
    columns: dict[str, Any] = {"_id": [row[1] for row in rows], "_sample": [row[0] for row in rows]}
    for index, name in enumerate(FEATURE_NAMES):
        columns[name] = [float(row[2][index]) for row in rows]
    return json.dumps(columns).encode()


def place(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def tracks_of(
    folder: Path, cache: Path | None = None, **settings: Any
) -> tuple[list[DescriptorTrack], list[str]]:
    heard = Heard()
    recordings = folder_corpus(folder, descriptors=True).recordings
    found = described(recordings, ArrayCache(cache), heard, **settings)
    assert sorted(heard.updates) == [
        ("describing recordings", done, len(recordings)) for done in range(1, len(recordings) + 1)
    ]
    return found, heard.said


def entries(cache: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in cache.rglob("*.npy")}


def test_sounds_are_described_as_the_descriptor_service_does(tmp_path: Path) -> None:
    place(tmp_path, {"b.wav": noise(1), "in/a.wav": noise(2)})
    found, said = tracks_of(tmp_path)
    assert [each.source for each in found] == ["b.wav", "in - a.wav"]
    assert said == []
    for each, path in zip(found, (tmp_path / "b.wav", tmp_path / "in/a.wav"), strict=True):
        direct = extract_file(path, name="", settings=ExtractionSettings())
        np.testing.assert_array_equal(each.values, direct.values)
        assert each.feature_names == direct.feature_names
        assert (each.sample_rate_hertz, each.hop_length_samples) == (44_100, 1024)


def test_the_answer_does_not_depend_on_threads_or_cache(tmp_path: Path) -> None:
    place(tmp_path / "in", {f"{seed}.wav": noise(seed, 0.2 * seed) for seed in range(1, 5)})
    alone, _ = tracks_of(tmp_path / "in", workers=1)
    for workers in (2, 4):
        for _ in ("cold", "warm"):
            found, _ = tracks_of(tmp_path / "in", tmp_path / f"cache{workers}", workers=workers)
            assert [each.source for each in found] == [each.source for each in alone]
            for one, other in zip(alone, found, strict=True):
                np.testing.assert_array_equal(one.values, other.values)


def test_what_was_described_once_is_found_again_whatever_its_name(tmp_path: Path) -> None:
    cache, content = tmp_path / "cache", noise(1)
    first, _ = tracks_of(place(tmp_path / "one", {"a.wav": content}), cache)
    made = entries(cache)
    second, _ = tracks_of(place(tmp_path / "two", {"b.wav": content}), cache)
    assert entries(cache) == made
    assert len(made) == 1
    assert second[0].source == "b.wav"
    np.testing.assert_array_equal(first[0].values, second[0].values)


@pytest.mark.parametrize(
    "other", [ExtractionSettings(hop_length=512), ExtractionSettings(sample_rate_hertz=22_050)]
)
def test_a_cache_does_not_take_one_rate_or_hop_for_another(
    tmp_path: Path, other: ExtractionSettings
) -> None:
    folder, cache = place(tmp_path / "in", {"a.wav": noise(1)}), tmp_path / "cache"
    tracks_of(folder, cache)
    (found,), _ = tracks_of(folder, cache, extraction=other)
    assert found.hop_length_samples == other.hop_length
    assert found.sample_rate_hertz == other.sample_rate_hertz
    direct = extract_file(folder / "a.wav", name="", settings=other)
    np.testing.assert_array_equal(found.values, direct.values)


def test_an_algorithm_that_changed_finds_nothing_of_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, cache = place(tmp_path / "in", {"a.wav": noise(1)}), tmp_path / "cache"
    tracks_of(folder, cache)
    monkeypatch.setattr("services.descriptor.mfcc.ALGORITHM", 99)
    tracks_of(folder, cache)
    assert len(entries(cache)) == 2


def test_what_cannot_be_learned_from_is_named_and_stops_no_other(tmp_path: Path) -> None:
    good = noise(1)
    files = {
        "empty.wav": b"",
        "text.wav": b"no sound" * 100,
        "cut.wav": good[: len(good) // 2],
        "silent.wav": wav(np.zeros((RATE, 1), np.float32)),
        "good.wav": good,
        "same.wav": good,
        "text.json": b"no JSON",
        "settings.json": b'{"name": "x", "rate": 44100}',
    }
    found, said = tracks_of(place(tmp_path, files))
    assert [each.source for each in found] == ["good.wav"]
    assert len(said) == len(files) - 1
    for name in files.keys() - {"good.wav"}:
        assert sum(line.startswith(f"left out: {name}") for line in said) == 1, name
    assert "left out: same.wav is a copy of good.wav" in said


def test_a_copy_in_another_format_is_a_copy(tmp_path: Path) -> None:
    samples = np.random.default_rng(1).integers(-9000, 9000, RATE // 2).astype(np.int16)
    for name in ("a.flac", "b.wav"):
        soundfile.write(tmp_path / name, samples, RATE, subtype="PCM_16")
    found, said = tracks_of(tmp_path)
    assert [each.source for each in found] == ["a.flac"]
    assert said == ["left out: b.wav is a copy of a.flac"]


def test_nothing_that_can_be_learned_from_is_refused(tmp_path: Path) -> None:
    place(tmp_path, {"a.wav": b"no sound", "b.json": b"{}"})
    with pytest.raises(InvalidInputError, match="none of the 2 files"):
        tracks_of(tmp_path)


def test_a_file_that_changes_meanwhile_is_named(tmp_path: Path) -> None:
    place(tmp_path, {"a.wav": noise(1)})
    recording = Recording(tmp_path / "a.wav", "a.wav")
    assert recording.sha256
    place(tmp_path, {"a.wav": noise(2)})
    with pytest.raises(ConflictError, match=r"a\.wav was changed"):
        described([recording], ArrayCache(None), Heard())


def test_published_files_of_one_sound_and_of_many_are_learned_from(tmp_path: Path) -> None:
    one, two, three = (track(f"{name}.wav", seed) for seed, name in enumerate(("x", "y", "z")))
    files = {"all.json": published(one, two), "z.json": published(three)}
    found, said = tracks_of(place(tmp_path, files))
    assert [each.source for each in found] == [
        "all.json: x.wav",
        "all.json: y.wav",
        "z.json: z.wav",
    ]
    assert said == []
    for expected, each in zip((one, two, three), found, strict=True):
        np.testing.assert_array_equal(each.values, expected.values)
        assert (each.sample_rate_hertz, each.hop_length_samples) == (44_100, 1024)


def test_published_descriptors_of_record_are_learned_from(tmp_path: Path) -> None:
    database = next(GOLDEN.rglob("AUDIOS_database.json"))
    found, said = tracks_of(place(tmp_path, {database.name: database.read_bytes()}))
    assert [each.source for each in found] == [f"{database.name}: file{i}.wav" for i in range(5)]
    assert [each.frame_count for each in found] == [80] * 5
    assert said == []


def test_rate_and_hop_are_those_of_the_descriptor_file(tmp_path: Path) -> None:
    files = {
        "ours.json": write_tracks([track("a.wav", rate=22_050, hop=512)]),
        "published.json": published(track("b.wav", 1, hop=512)),
    }
    found, _ = tracks_of(place(tmp_path, files))
    told = [(each.sample_rate_hertz, each.hop_length_samples) for each in found]
    assert told == [(22_050, 512), (44_100, 512)]


def test_predictions_of_either_system_are_left_out_by_name(tmp_path: Path) -> None:
    prediction = next(GOLDEN.rglob("*_input_prediction.json"))
    files = {
        "a.wav": noise(1),
        "ours.json": write_tracks([track("b.wav")], predictor="4fq0b2xk@900"),
        prediction.name: prediction.read_bytes(),
    }
    found, said = tracks_of(place(tmp_path, files))
    assert [each.source for each in found] == ["a.wav"]
    assert len(said) == 2
    for name in ("ours.json", prediction.name):
        assert any(name in line and "prediction" in line for line in said)


def test_sounds_of_the_same_name_do_not_collide(tmp_path: Path) -> None:
    name = "the very long name of a recording, take"
    files = {
        "a/x.wav": noise(1),
        "b/x.wav": noise(2),
        "a.json": write_tracks([track("y.wav", 3), track(f"{name} 1.wav", 4)]),
        "b.json": write_tracks([track("y.wav", 5), track(f"{name} 2.wav", 6)]),
        f"{name} 3.wav": noise(7),
        f"{name} 4.wav": noise(8),
    }
    found, said = tracks_of(place(tmp_path, files))
    assert len({each.source for each in found}) == len(found) == 8
    assert said == []


def test_a_sound_wins_over_its_own_descriptors(tmp_path: Path) -> None:
    place(tmp_path, {"in/x.wav": noise(1), "y.wav": noise(2)})
    settings = ExtractionSettings(hop_length=512)
    own = extract_file(tmp_path / "in/x.wav", name="/music/x.wav", settings=settings)
    longer = track("y.wav", 3, frames=300)
    place(tmp_path, {"x.json": write_tracks([own]), "y.json": write_tracks([longer])})
    found, said = tracks_of(tmp_path)
    assert [each.source for each in found] == ["in - x.wav", "y.json: y.wav", "y.wav"]
    assert said == ["left out: x.json: /music/x.wav describes a sound that is there itself"]


def prepared_for_training(world: World) -> tuple[dict[str, int], tuple[str, ...]]:
    """The inodes of all cache entries, and what is held out, as one process of several sees it."""
    folder = Path(os.environ["TEST_TRACKS"])
    site = Site(
        folder_corpus(folder / "in", descriptors=True),
        "cpu",
        world,
        ArrayCache(folder / "cache"),
        Heard(),
    )
    settings = PredictorTraining(window_size=5, hidden_size=4, num_layers=1, hop_length=512)
    made = make("predictor", settings, 0, site)
    inodes = {path.name: path.stat().st_ino for path in (folder / "cache").rglob("*.npy")}
    world.wait()
    return inodes, tuple(made.trainer.config()["training"]["validation_files"])


def test_processes_of_a_machine_learn_from_what_the_first_described(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"a.wav": noise(1), "b.json": write_tracks([track("b.wav", hop=512)])}
    place(tmp_path / "in", files)
    monkeypatch.setenv("TEST_TRACKS", str(tmp_path))
    first, second = together(2, prepared_for_training)
    assert first == second
    assert len(first[0]) == len(files)
    assert len(first[1]) == 1
