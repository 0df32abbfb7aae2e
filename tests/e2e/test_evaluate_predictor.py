"""From recordings to trained predictors to the table that tells which of them is worth hearing."""

import json
import re
from pathlib import Path

import pytest

from tests.conftest import sound
from tests.e2e.test_train import in_process
from tests.e2e.workspace import Workspace

SMALL = ("--window-size", "12", "--hidden-size", "4", "--num-layers", "1", "--steps", "3")


@pytest.fixture
def work(tmp_path: Path) -> Workspace:
    (tmp_path / "music").mkdir()
    for seed in range(3):
        (tmp_path / "music" / f"{seed}.wav").write_bytes(sound(4.0, seed))
    return Workspace(tmp_path, {"WANDB_MODE": "disabled"})


def test_a_training_is_judged_at_its_end_and_evaluated_beside_baselines(
    work: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = work.run("train", "predictor", "--recorded", "music", *SMALL)
    assert done.returncode == 0, done.stderr
    assert "not judged" not in done.stderr
    version = done.stdout.split()[-1]
    folder = work.home / "store" / "models" / "predictor" / version.replace("@", "/")
    figures = json.loads((folder / "figures.json").read_bytes())
    assert {"error_10", "persistence_error_10"} <= figures.keys()
    assert "## Judged on held-out sound" in (folder / "card.md").read_text()
    assert (folder / "trajectories.png").exists()
    evaluated = in_process(
        *(work, monkeypatch, "evaluate", "predictor", version, "--recorded", "music"),
        *("--places", "6", "--samples", "2", "--frames", "100", "--out", "table"),
    )
    assert evaluated.exit_code == 0, evaluated.stderr
    rows = {line.split("  ")[0] for line in evaluated.stdout.splitlines()}
    assert {version, "persistence", "training mean", "linear autoregression"} <= rows
    table = (work.folder / "table" / "table.md").read_text()
    # How long it was trained is told by its card.
    assert re.search(rf"\| {version} \| LSTM \| demo-cpu.* \| 0 \| \d+ \| \d+\.\d \|", table)
    assert (work.folder / "table" / "errors.png").exists()
