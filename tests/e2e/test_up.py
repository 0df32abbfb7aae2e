"""`demiurge up` beside other commands, and commands beside each other."""

import shutil
import signal
from pathlib import Path

import pytest

from tests.conftest import MELGAN, PREDICTOR, UNAGAN
from tests.e2e.workspace import Workspace, ended, furnish

RUN = (
    *("run", "--prediction", "prediction", "--duration", "0.5", "--unagan", UNAGAN),
    *("--melgan", MELGAN, "--predictor", PREDICTOR),
)


@pytest.fixture
def work(tmp_path: Path, trained_models: Path) -> Workspace:
    shutil.copytree(trained_models, tmp_path / "home" / "store")
    return furnish(tmp_path)


def test_commands_meet_in_the_services_that_run(work: Workspace) -> None:
    with work.up() as process:
        calls = [
            work.start("index", folder, "--collection", folder)
            for folder in ("recorded", "prediction")
        ]
        for call in calls:
            done = ended(call)
            assert done.returncode == 0, done.stderr
            assert "waiting" not in done.stderr
        assert "all services run already" in work.refusal("up")
        said = work.given(DEMIURGE_STORE=str(work.folder / "other")).refusal("runs")
        assert "DEMIURGE_STORE" in said
        assert "DEMIURGE_HOME" in said
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert not work.notice.exists()


def test_what_a_killed_up_left_breaks_nothing(work: Workspace) -> None:
    with work.up() as process:
        process.kill()
        process.wait()
        assert work.notice.exists()
        assert "no runs yet" in work.output("runs")


def test_commands_make_room_for_each_other(work: Workspace) -> None:
    long = work.start(*RUN, "--files", "200", "--file-duration", "8")
    try:
        assert long.stderr
        run_id = next(line.split()[1] for line in long.stderr if line.startswith("run "))
        assert str(work.home / "query") in work.refusal("up")
        waiting = work.start("index", "prediction", "--collection", "second")
        assert waiting.stderr
        line = waiting.stderr.readline()
        assert line.startswith(f"waiting: another command has the index in {work.home}")
        assert f"{run_id}  running" in work.output("runs")
        assert work.output("runs", "cancel", run_id) == f"{run_id}: cancelled"
        assert f"run {run_id} was cancelled" in ended(long).stderr
        second = ended(waiting)
        assert second.returncode == 0, second.stderr
    finally:
        long.kill()
        long.wait()
