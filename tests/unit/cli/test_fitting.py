import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from services.cli.progress import Reporter
from services.cli.training.fit import Fit, fit
from services.runtime.model_store import ModelStore
from services.runtime.object_store.folder import FolderStore


class Notes(Reporter):
    """What was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def update(self, name: str, completed: int, total: int, note: str = "") -> None:
        self.last = (name, completed, total, note)


class Ramp:
    """A trainer whose weight is its step, judged by the figures it is given."""

    def __init__(self, *figures: float) -> None:
        self.figures = list(figures)
        self.steps = 0

    def step(self) -> Mapping[str, Any]:
        self.steps += 1
        return {"loss": torch.tensor(1.0 / self.steps)}

    def validate(self) -> Mapping[str, float]:
        return {"error": self.figures[self.steps - 1], "other": -float(self.steps)}

    def weights(self) -> bytes:
        return save({"step": torch.tensor([float(self.steps)])})

    def config(self) -> dict[str, Any]:
        return {"family": "melgan"}


@pytest.fixture(autouse=True)
def _wandb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")


@pytest.fixture
def models(tmp_path: Path) -> ModelStore:
    return ModelStore(FolderStore(tmp_path / "store"))


def plan(steps: int) -> Fit:
    return Fit(family="melgan", model_id="abc12345", corpus="birds", steps=steps, figure="error")


def test_the_best_step_is_chosen_by_the_figure_and_the_last_is_kept(
    models: ModelStore, tmp_path: Path
) -> None:
    notes = Notes()
    best = fit(Ramp(3.0, 1.0, 2.0, 4.0), plan(4), models, notes, tmp_path / "wandb")
    assert best.version_id == "abc12345@2"
    assert best.config["figures"]["validation/error"] == 1.0
    assert models.find("melgan", "abc12345@4").step == 4
    assert notes.last == ("training melgan", 4, 4, "error 4")
    assert not notes.said


def test_a_model_that_was_interrupted_keeps_its_best_step(
    models: ModelStore, tmp_path: Path
) -> None:
    class Stopped(Ramp):
        def step(self) -> Mapping[str, Any]:
            if self.steps == 3:
                raise KeyboardInterrupt
            return super().step()

    with pytest.raises(KeyboardInterrupt):
        fit(Stopped(3.0, 1.0, 2.0, 4.0), plan(4), models, Notes(), tmp_path / "wandb")
    assert models.find("melgan", "abc12345").step == 2


def test_a_figure_that_is_no_number_never_counts_as_best(
    models: ModelStore, tmp_path: Path
) -> None:
    nan = float("nan")
    best = fit(Ramp(nan, 2.0, nan), plan(3), models, Notes(), tmp_path / "wandb")
    assert best.step == 2


def test_the_card_tells_how_the_model_came_about(models: ModelStore, tmp_path: Path) -> None:
    fit(Ramp(3.0, 1.0), plan(2), models, Notes(), tmp_path / "wandb")
    card = (tmp_path / "store" / "models" / "melgan" / "abc12345" / "2" / "card.md").read_text()
    assert "# melgan abc12345, step 2" in card
    assert "Trained on birds, 2 of 2 steps" in card
    assert "chosen by error" in card
    assert "| validation/error | 1 |" in card
    assert "| loss | 0.5 |" in card


def test_without_wandb_a_training_goes_on(
    models: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    notes = Notes()
    assert fit(Ramp(1.0, 0.5), plan(2), models, notes, tmp_path / "wandb").step == 2
    assert len(notes.said) == 1
    assert "W&B does not work" in notes.said[0]


ONLINE = """
import sys
from pathlib import Path
from services.cli.training import tracking

tracking.SECONDS_TO_START = 2.0
with tracking.Tracker("abc12345", "melgan birds", {}, Path(sys.argv[1]), print) as tracker:
    tracker.log(1, {"loss": 0.5})
"""


def test_the_course_is_kept_offline_where_wandb_cannot_be_reached(tmp_path: Path) -> None:
    # A process of its own: W&B reads its settings once.
    settings = {
        "WANDB_MODE": "online",
        "WANDB_API_KEY": "0" * 40,
        "WANDB_BASE_URL": "http://127.0.0.1:9",
    }
    done = subprocess.run(
        [sys.executable, "-c", ONLINE, str(tmp_path / "wandb")],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    (said,) = done.stdout.splitlines()
    assert said.startswith("W&B does not work, training goes on without it: ")
    (kept,) = (tmp_path / "wandb").rglob("offline-run-*-abc12345/run-abc12345.wandb")
    assert kept.stat().st_size
