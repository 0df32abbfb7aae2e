import multiprocessing
import os
import re
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from services.cli.progress import Reporter
from services.cli.training.begin import go_on, train
from services.cli.training.crew import train_all
from services.cli.training.order import Order
from services.cli.training.sitting import Sitting, Workshop
from services.errors import DemiurgeError, InvalidInputError, NotFoundError
from services.runtime.model_store import ModelStore
from services.runtime.object_store.folder import FolderStore
from tests.conftest import sound

SMALL = {"window_size": 5, "hidden_size": 4, "num_layers": 1}


class Notes(Reporter):
    """What was said and how far things came; at every step something may happen."""

    def __init__(self, happen: Callable[[], None] = lambda: None) -> None:
        self._happen = happen
        self.said: list[str] = []
        self.updates: list[tuple[str, int, int]] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def update(self, name: str, completed: int, total: int, note: str = "") -> None:  # noqa: ARG002
        self.updates.append((name, completed, total))
        self._happen()


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEMIURGE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "voices"
    folder.mkdir()
    for seed in (1, 2):
        (folder / f"{seed}.wav").write_bytes(sound(0.8, seed))
    return folder


def order(folder: Path, family: str = "predictor", **changes: object) -> Order:
    values = {"preset": "demo-cpu", "seed": 0, "device": "cpu", "steps": 2} | changes
    if family == "predictor":
        values.setdefault("overrides", SMALL)
    return Order(family, folder, **values)  # type: ignore[arg-type]


def test_the_same_order_finds_the_model_and_another_seed_trains_another(folder: Path) -> None:
    notes = Notes()
    workshop = Workshop.here(notes)
    first = train(order(folder), workshop)
    trained = len(notes.updates)
    assert train(order(folder), workshop) == first
    assert len(notes.updates) == trained
    assert train(order(folder, seed=1), workshop).id != first.id


def test_the_same_recordings_elsewhere_find_the_model(folder: Path, tmp_path: Path) -> None:
    workshop = Workshop.here(Notes())
    first = train(order(folder), workshop)
    shutil.copytree(folder, tmp_path / "copy")
    assert train(order(tmp_path / "copy"), workshop) == first
    (tmp_path / "copy" / "3.wav").write_bytes(sound(0.8, 3))
    assert train(order(tmp_path / "copy"), workshop).id != first.id


def test_a_model_that_was_deleted_is_trained_anew(folder: Path, tmp_path: Path) -> None:
    workshop = Workshop.here(Notes())
    first = train(order(folder), workshop)
    shutil.rmtree(tmp_path / "home" / "store" / "models")
    again = train(order(folder), workshop)
    assert again.id != first.id
    assert train(order(folder), workshop) == again


@pytest.mark.parametrize("family", ["melgan", "unagan", "predictor"])
def test_an_unknown_preset_is_refused_with_those_there_are(folder: Path, family: str) -> None:
    with pytest.raises(NotFoundError, match="demo-cpu"):
        train(order(folder, family, preset="huge"), Workshop.here(Notes()))


def test_a_preset_that_names_no_length_asks_for_steps_before_anything_is_read(folder: Path) -> None:
    (folder / "broken.wav").write_text("no sound")
    notes = Notes()
    with pytest.raises(InvalidInputError, match="--steps"):
        train(order(folder, "unagan", preset="published-script", steps=None), Workshop.here(notes))
    assert not [text for text in notes.said if "left out" in text]


def test_a_sound_too_short_to_learn_from_is_told(folder: Path) -> None:
    (folder / "click.wav").write_bytes(sound(0.05, 3))
    notes = Notes()
    train(order(folder), Workshop.here(notes))
    assert "left out: click.wav is too short for the window" in notes.said


@pytest.mark.parametrize("device", ["cuda", "toaster"])
def test_a_device_that_is_not_there_is_named(folder: Path, device: str) -> None:
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has one")
    with pytest.raises(InvalidInputError, match=f"--device {device}"):
        train(order(folder, device=device), Workshop.here(Notes()))


def test_each_is_trained_in_a_process_of_its_own(folder: Path, tmp_path: Path) -> None:
    notes = Notes()
    trained = train_all([order(folder)], notes)
    assert set(trained) == {"predictor"}
    assert (
        ModelStore(FolderStore(tmp_path / "home" / "store"))
        .find("predictor", trained["predictor"])
        .config["figures"]
    )
    assert ("training predictor", 2, 2) in notes.updates
    assert not multiprocessing.active_children()


def test_an_error_in_one_ends_the_others(folder: Path) -> None:
    orders = [order(folder, steps=10**6), order(folder, "melgan", preset="huge")]
    with pytest.raises(NotFoundError, match="huge") as caught:
        train_all(orders, Notes())
    assert caught.value.culprit == "huge"
    assert not multiprocessing.active_children()


def test_a_training_that_is_killed_is_told(folder: Path) -> None:
    def kill() -> None:
        for child in multiprocessing.active_children():
            os.kill(child.pid or 0, signal.SIGKILL)

    with pytest.raises(DemiurgeError, match="the training of the predictor broke off"):
        train_all([order(folder, steps=10**6)], Notes(kill))


def test_trainings_that_are_ended_store_their_state_and_go_on(folder: Path) -> None:
    def interrupt() -> None:
        if notes.updates[-1][:2] == ("training predictor", 3):
            raise KeyboardInterrupt

    notes = Notes(interrupt)
    wanted = order(folder, steps=10**6, every=10**6)
    with pytest.raises(KeyboardInterrupt):
        train_all([wanted], notes)
    assert not multiprocessing.active_children()
    (stopped,) = [text for text in notes.said if "stopped after step" in text]
    again = Notes()
    assert train_all([replace(wanted, minutes=0.0)], again)
    step = stopped.split("stopped after step ")[1].split(",")[0]
    assert f"goes on after step {step}" in again.said


def test_an_order_that_was_prolonged_finds_the_longer_model(folder: Path) -> None:
    workshop = Workshop.here(Notes())
    first = train(order(folder), workshop)
    longer = go_on("predictor", first.id, workshop, Sitting("cpu"), steps=3)
    assert longer.id == first.id
    assert ModelStore(workshop.store).find("predictor", f"{first.id}@3")
    assert train(order(folder), workshop) == longer


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ({"hidden_siz": 4}, "no such training setting: hidden_siz; did you mean hidden_size?"),
        ({"hidden_size": "wide"}, "hidden_size: input should be a valid integer"),
        ({"schedule": "wavy"}, "schedule: input should be 'constant', 'cosine' or 'published'"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(
    folder: Path, overrides: dict[str, object], told: str
) -> None:
    with pytest.raises(InvalidInputError, match=re.escape(told)):
        train(order(folder, overrides=overrides), Workshop.here(Notes()))
