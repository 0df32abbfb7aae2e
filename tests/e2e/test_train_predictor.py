"""`demiurge train predictor` on sounds and on descriptor files, by the published script's flags."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.audio.track import DescriptorTrack
from services.audio.track_json import read_tracks, write_tracks
from services.errors import ConflictError, SettingsMismatchError
from tests.conftest import sound
from tests.e2e.test_train import in_process, only_model
from tests.e2e.workspace import Workspace

NAMES = tuple(f"mfcc{i}" for i in range(39))
SMALL = ("--window-size", "5", "--hidden-size", "4", "--num-layers", "1", "--batch-size", "8")
TRAIN = ("train", "predictor", "--audio-db-dir", "music", *SMALL, "--steps", "2")
# Alike in more letters than the published system keeps of a name.
LONG = "a very long name of a recording, take"


@pytest.fixture
def work(tmp_path: Path) -> Workspace:
    (tmp_path / "music").mkdir()
    return Workspace(tmp_path, {"WANDB_MODE": "disabled"})


def walk(source: str, seed: int, frames: int = 40, rate: int = 44_100) -> DescriptorTrack:
    steps = np.random.default_rng(seed).normal(0, 1, (frames, 39))
    return DescriptorTrack(NAMES, steps.cumsum(axis=0).astype(np.float32), rate, 1024, source)


def published(*tracks: DescriptorTrack) -> bytes:
    """A published file: ours without what ours add."""
    columns = json.loads(write_tracks(tracks))
    return json.dumps(
        {k: v for k, v in columns.items() if k not in {"_sample_rate", "_hop_length"}}
    ).encode()


def config_of(work: Workspace, model: str) -> dict[str, Any]:
    (path,) = (work.home / "store/models/predictor" / model).glob("2/config.json")
    config: dict[str, Any] = json.loads(path.read_bytes())
    return config


def test_the_published_flags_with_underscores_train_beside_a_file_that_is_broken(
    work: Workspace,
) -> None:
    for name in ("a.wav", "b.wav"):
        (work.folder / "music" / name).write_bytes(sound(0.6, len(name) + ord(name[0])))
    (work.folder / "music" / "broken.wav").write_bytes(sound(0.5)[:9000])
    done = work.run(
        *("train", "predictor", "--selected_model", "LSTMEncoderDecoderModel"),
        *("--audio_db_dir", "music", "--window_size", "5", "--forecast_size", "2"),
        *("--hidden_size", "4", "--num_layers", "1", "--batch_size", "4"),
        *("--learning_rate", "0.01", "--sr", "22050", "--hop_length", "512", "--steps", "2"),
    )
    assert done.returncode == 0, done.stderr
    assert "left out: broken.wav" in done.stderr
    model, _, step = done.stdout.strip().partition("@")
    assert step
    config = config_of(work, model)
    assert config["architecture"] == "LSTMEncoderDecoderModel"
    assert (config["window_frames"], config["forecast_frames"]) == (5, 2)
    assert (config["sample_rate_hertz"], config["hop_length_samples"]) == (22_050, 512)
    assert config["training"]["learning_rate"] == 0.01
    assert config["training"]["validation_files"] in (["a.wav"], ["b.wav"])


def test_descriptor_files_of_either_published_layout_are_learned_from(
    work: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    music = work.folder / "music"
    (music / "AUDIOS_database.json").write_bytes(published(walk("x.wav", 1), walk("y.wav", 2)))
    (music / "z.json").write_bytes(published(walk("z.wav", 3)))
    (music / "notes.json").write_text('{"by": "me"}')
    (music / "own.wav").write_bytes(sound(1.0))
    done = in_process(work, monkeypatch, *TRAIN, "--selected_model", "LSTM")
    assert "left out: notes.json" in done.stderr
    model = only_model(work, "predictor")
    (held,) = config_of(work, model)["training"]["validation_files"]
    sounds = {f"AUDIOS_database.json: {name}.wav" for name in "xy"} | {"z.json: z.wav", "own.wav"}
    assert held in sounds
    record = json.loads(
        (work.home / f"store/checkpoints/predictor/{model}/training.json").read_bytes()
    )
    assert set(record["files"]) == {"AUDIOS_database.json", "notes.json", "own.wav", "z.json"}
    (music / "z.json").write_bytes(published(walk("z.wav", 4)))
    with pytest.raises(ConflictError, match=r"z\.json is changed"):
        in_process(work, monkeypatch, *TRAIN[:2], "--resume", model, "--steps", "4")


def test_what_was_predicted_is_not_learned_from(
    work: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    music = work.folder / "music"
    names = [f"{LONG} {take}.wav" for take in range(1, 71)]
    (music / "all.json").write_bytes(
        write_tracks([walk(name, seed, frames=12) for seed, name in enumerate(names)])
    )
    done = in_process(work, monkeypatch, *TRAIN)
    model = done.stdout.strip()
    held = config_of(work, model.partition("@")[0])["training"]["validation_files"]
    assert len(set(held)) == len(held) == 7
    asked = ("predict", "music/all.json", "--predictor", model, "--steps", "3")
    in_process(work, monkeypatch, *asked, "--out", "music/predicted.json")
    content = (music / "predicted.json").read_bytes()
    predicted = read_tracks(content, source="")
    # Every sound, not only those of a first batch, and none in another's place.
    assert [track.source for track in predicted] == names
    assert [track.frame_count for track in predicted] == [3] * len(names)
    assert len({track.values.tobytes() for track in predicted}) == len(names)
    done = in_process(work, monkeypatch, *TRAIN, "--seed", "1")
    (line,) = [each for each in done.stderr.splitlines() if "predicted.json" in each]
    assert line.startswith("left out: predicted.json: _predictor says that this is a prediction")


def test_descriptors_of_another_rate_are_refused_by_name(
    work: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    (work.folder / "music" / "a.wav").write_bytes(sound(0.6))
    (work.folder / "music" / "slow.json").write_bytes(write_tracks([walk("b.wav", 1, rate=22_050)]))
    with pytest.raises(
        SettingsMismatchError, match=r"slow\.json: b\.wav: 22050 Hz .* a\.wav: 44100"
    ):
        in_process(work, monkeypatch, *TRAIN)
    assert not (work.home / "store" / "models").exists()
