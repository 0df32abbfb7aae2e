"""W&B's real client against a server of ours on loopback, or against none."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import wandb
from typer.testing import CliRunner

from services.cli.main import app
from services.cli.training import tracking
from services.cli.training.journal import Journal
from services.cli.training.tracking import Tracker
from services.runtime.model_store import ModelStore, ModelVersion
from services.runtime.object_store.folder import FolderStore
from tests.conftest import samples
from tests.full_disk import files_of_at_most
from tests.servers.wandb import Run, WandB

RUN_ID = "k3x9q1ab"
Begin = Callable[[], Tracker]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WandB]:
    with WandB() as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        yield running


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def begin(tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Begin]:
    """Makes trackers of one training; a stopped server is given up after a second."""
    # What the tracker would set for the whole process.
    ours = {"SILENT": "true", "ERROR_REPORTING": "false", "DATA_DIR": "data", "CACHE_DIR": "cache"}
    for name, value in ours.items():
        folder = str(tmp_path / value) if name.endswith("DIR") else value
        monkeypatch.setenv(f"WANDB_{name}", folder)
    monkeypatch.setenv("HOME", str(tmp_path))
    # What another test began knows the settings of that time.
    wandb.teardown()
    yield lambda: Tracker(
        RUN_ID, "melgan birds", {"seed": 7, "training": {"batch_size": 2}}, tmp_path, said.append
    )
    wandb.teardown()


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")


# More than W&B takes as keys of their own.
FIGURES = {f"error_{horizon}": 0.5 for horizon in range(150)}


def steps(run: Run) -> list[int]:
    return [row["_step"] for row in run.history]


def stored(models: ModelStore) -> ModelVersion:
    version = models.save(
        "predictor",
        RUN_ID,
        20,
        weights=b"the weights",
        config={"feature_names": ["mfcc0"]},
        card="# Birds",
        best=True,
    )
    return models.describe(version, figures=FIGURES, card="# Birds, judged", pictures={})


@pytest.mark.usefixtures("online")
def test_a_training_is_followed_under_the_id_of_its_model(
    server: WandB, begin: Begin, said: list[str]
) -> None:
    with begin() as tracker:
        tracker.log(10, {"loss": 0.5, "learning_rate": 1e-4, "gradient_norm/generator": 2.0})
        tracker.log(20, {"loss": 0.25, "validation/error": 1.0})
    run = server.runs[RUN_ID]
    first, second = run.history
    assert first == {
        "_step": 10,
        "loss": 0.5,
        "learning_rate": 1e-4,
        "gradient_norm/generator": 2.0,
    }
    assert second == {"_step": 20, "loss": 0.25, "validation/error": 1.0}
    assert run.name == "melgan birds"
    assert run.config["seed"] == {"value": 7}
    assert run.config["training"] == {"value": {"batch_size": 2}}
    assert run.finished
    assert not said


@pytest.mark.usefixtures("online")
def test_examples_can_be_heard_and_seen(server: WandB, begin: Begin, said: list[str]) -> None:
    broken = np.full(4000, np.nan, np.float32)
    with begin() as tracker:
        tracker.log(10, {"loss": 0.5})
        tracker.listen(10, {"recording/a b.wav": (samples(0.5, 1), 44_100), "copy": (broken, 8000)})
    run = server.runs[RUN_ID]
    (row,) = run.history
    names = {"audio/recording/a b.wav", "audio/copy"}
    assert {name for name in row if row[name] and name.startswith("audio/")} == names
    assert row["audio/copy"]["_type"] == "audio-file"
    assert row["spectrogram/copy"]["_type"] == "image-file"
    heard = run.files[row["audio/recording/a b.wav"]["path"]]
    assert heard[:4] == b"RIFF"
    assert len(heard) == 44 + 2 * 22_050
    seen = run.files[row["spectrogram/recording/a b.wav"]["path"]]
    assert seen[:8] == b"\x89PNG\r\n\x1a\n"
    assert not said


@pytest.mark.usefixtures("online")
def test_a_published_model_can_be_imported_elsewhere(
    server: WandB,
    begin: Begin,
    tmp_path: Path,
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    theirs, ours = (ModelStore(FolderStore(tmp_path / name)) for name in ("theirs", "ours"))
    version = stored(theirs)
    with begin() as tracker:
        tracker.publish(theirs, version)
    (artifact,) = server.runs[RUN_ID].artifacts
    assert artifact.committed
    assert artifact.metadata == {"family": "predictor", "step": 20, "figures": FIGURES}
    assert artifact.files["card.md"] == b"# Birds, judged"
    assert not said
    wandb.teardown()
    monkeypatch.setenv("DEMIURGE_STORE", str(tmp_path / "ours"))
    done = CliRunner().invoke(app, ["import", f"wandb:lab/demiurge/{RUN_ID}"])
    assert done.output == f"predictor {RUN_ID}@20\n"
    assert ours.read_weights(ours.find("predictor", RUN_ID)) == b"the weights"


def test_offline_nothing_is_sent_until_somebody_syncs(
    server: WandB, begin: Begin, tmp_path: Path, said: list[str]
) -> None:
    models = ModelStore(FolderStore(tmp_path / "store"))
    with begin() as tracker:
        tracker.log(10, {"loss": 0.5})
        tracker.listen(10, {"copy": (samples(0.1, 1), 44_100)})
        tracker.publish(models, stored(models))
    assert not server.calls
    assert not said
    sync(tmp_path, server)
    (row,) = server.runs[RUN_ID].history
    assert row["loss"] == 0.5
    assert row["audio/copy"]["path"] in server.runs[RUN_ID].files


def sync(folder: Path, server: WandB) -> None:
    """`wandb sync`, as somebody would do it in the folder."""
    subprocess.run(
        [sys.executable, "-m", "wandb", "sync", "--yes", "-p", "demiurge"],
        cwd=folder,
        env=os.environ | server.environment,
        check=True,
        capture_output=True,
        timeout=300,
    )


def run(code: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """A process of its own, that is given the folder."""
    return subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        cwd=Path(__file__).parents[4],
        capture_output=True,
        check=False,
        text=True,
        timeout=300,
    )


KILLED = """
import os, sys
from pathlib import Path
from services.cli.training.tracking import Tracker

tracker = Tracker("k3x9q1ab", "", {}, Path(sys.argv[1]), print)
for step in (1, 2, 3):
    tracker.log(step, {"loss": float(step)})
os.kill(os.getpid(), 9)
"""


def resumed(tracker: Tracker, folder: Path) -> None:
    """Goes on after step 2, of the three that were logged, to step 5."""
    journal = Journal(FolderStore(folder / "store"), "melgan", RUN_ID)
    for step in (1, 2):
        journal.record(step, {"loss": float(step)})
    with tracker:
        tracker.catch_up(journal.entries)
        for step in (3, 4, 5):
            tracker.log(step, {"loss": float(step)})


def test_a_training_killed_offline_and_resumed_is_synced_whole(
    server: WandB, begin: Begin, tmp_path: Path, said: list[str]
) -> None:
    assert run(KILLED, tmp_path).returncode == -signal.SIGKILL
    resumed(begin(), tmp_path)
    assert list((tmp_path / "wandb").glob(f"former-offline-run-*-{RUN_ID}"))
    sync(tmp_path, server)
    assert steps(server.runs[RUN_ID]) == [1, 2, 3, 4, 5]
    assert not said


@pytest.mark.usefixtures("online")
def test_a_training_killed_online_and_resumed_sends_no_step_twice(
    server: WandB, begin: Begin, tmp_path: Path, said: list[str]
) -> None:
    assert run(KILLED, tmp_path).returncode == -signal.SIGKILL
    resumed(begin(), tmp_path)
    assert steps(server.runs[RUN_ID]) == [1, 2, 3, 4, 5]
    assert not said


def assert_told_once(said: list[str], folder: Path) -> None:
    (line,) = said
    assert line.startswith("W&B does not work, training goes on without it: ")
    assert line.endswith(
        f"; its course is kept below {folder}, and `wandb sync` sends it from there"
    )


@pytest.mark.usefixtures("online")
@pytest.mark.parametrize(
    "publishes",
    [
        False,
        # W&B's client asks for twenty seconds whether the key is still good.
        pytest.param(True, marks=pytest.mark.slow),
    ],
)
def test_a_server_that_falls_silent_is_given_up(
    *,
    publishes: bool,
    server: WandB,
    begin: Begin,
    tmp_path: Path,
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tracking, "SECONDS_TO_FINISH", 1.0)
    models = ModelStore(FolderStore(tmp_path / "store"))
    with begin() as tracker:
        tracker.log(1, {"loss": 0.5})
        server.hanging = "/"
        tracker.log(2, {"loss": 0.5})
        if publishes:
            tracker.publish(models, stored(models))
        tracker.log(3, {"loss": 0.5})
    assert_told_once(said, tmp_path)


KILLS_ITS_CLIENT = """
import os, sys, time
from pathlib import Path
from services.cli.training.tracking import Tracker

said = []
with Tracker("k3x9q1ab", "", {}, Path(sys.argv[1]), said.append) as tracker:
    for children in Path("/proc/self/task").glob("*/children"):
        for child in children.read_text().split():
            os.kill(int(child), 9)
    for step in range(1000):
        tracker.log(step, {"loss": 0.5})
        time.sleep(0 if said else 0.01)
print(*said, sep="\\n")
"""


@pytest.mark.usefixtures("online", "server", "begin")
def test_a_client_that_dies_is_done_without(tmp_path: Path) -> None:
    done = run(KILLS_ITS_CLIENT, tmp_path)
    assert done.returncode == 0
    assert_told_once(done.stdout.splitlines(), tmp_path)
    assert not done.stderr


@pytest.mark.usefixtures("online")
def test_a_full_disk_stops_no_training(
    server: WandB, begin: Begin, tmp_path: Path, said: list[str]
) -> None:
    with begin() as tracker:
        tracker.log(1, {"loss": 0.5})
        with files_of_at_most(100):
            tracker.listen(1, {"copy": (samples(0.1, 1), 44_100)})
        tracker.log(2, {"loss": 0.5})
    assert_told_once(said, tmp_path)
    assert steps(server.runs[RUN_ID]) == [1]
