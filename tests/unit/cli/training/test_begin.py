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
from services.cli.training import families
from services.cli.training.begin import go_on, ordered_settings, train
from services.cli.training.crew import train_all
from services.cli.training.order import Order
from services.cli.training.record import Records
from services.cli.training.sitting import Sitting, Workshop
from services.errors import (
    DemiurgeError,
    InvalidInputError,
    NotFoundError,
    SettingsMismatchError,
)
from services.predictor.training.presets import OWN, PUBLISHED
from services.predictor.training.trainer import PredictorTrainer
from services.runtime.model_store import ModelStore
from services.runtime.object_store.folder import FolderStore
from services.synth.melgan.presets import PRESETS as MELGANS
from services.synth.unagan.presets import PRESETS as UNAGANS
from tests.conftest import sound

SMALL = {"window_size": 5, "hidden_size": 4, "num_layers": 1}
NARROW_UNAGAN = {
    "networks.mel.n_fft": 256,
    "networks.mel.hop_length": 64,
    "networks.mel.win_length": 256,
    "networks.mel.n_mels": 16,
    "networks.z_dim": 4,
    "networks.z_scale_factors": "2,2",
    "networks.middle_dim": 8,
    "batch_size": 2,
    "segment_seconds": 0.1,
}


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

    def trained(self) -> int:
        return sum(name.startswith("training") for name, *_ in self.updates)


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
    trained = notes.trained()
    assert train(order(folder), workshop) == first
    assert notes.trained() == trained > 0
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
def test_a_device_that_is_not_there_is_named_and_nothing_begun(folder: Path, device: str) -> None:
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has one")
    workshop = Workshop.here(Notes())
    with pytest.raises(InvalidInputError, match=f"--device {device}"):
        train(order(folder, device=device), workshop)
    assert not list(workshop.store.keys(""))


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


def test_an_order_finds_what_it_made_and_not_what_became_of_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = iter([3.0, 2.0, 1.0])
    monkeypatch.setattr(
        PredictorTrainer,
        "validate",
        lambda trainer: {"free_run": next(figures)},  # noqa: ARG005
    )
    notes = Notes()
    workshop = Workshop.here(notes)
    first = train(order(folder), workshop)
    longer = go_on("predictor", first.id, workshop, Sitting("cpu"), steps=3)
    assert (first.step, longer.version_id) == (2, f"{first.id}@3")
    trained = notes.trained()
    assert train(order(folder), workshop) == first
    assert notes.trained() == trained


@pytest.mark.parametrize("steps", [9, 12])
def test_more_steps_go_on_where_patience_had_ended_a_training(
    folder: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    monkeypatch.setattr(
        PredictorTrainer,
        "validate",
        lambda trainer: {"free_run": 1 + (trainer.steps - 1) % 8},
    )
    notes = Notes()
    workshop = Workshop.here(notes)
    wanted = order(folder, steps=9, every=1, overrides=SMALL | {"patience": 3})
    first = train(wanted, workshop)
    records = Records(workshop.store)
    assert records.read("predictor", first.id).finished == 4
    go_on("predictor", first.id, workshop, Sitting("cpu"))
    assert notes.said[-1].startswith("training predictor: over after step 4: 3 validations were")
    notes.said.clear()
    go_on("predictor", first.id, workshop, Sitting("cpu"), steps=steps)
    assert any(f"it goes on to step {steps}, and they are counted anew" in n for n in notes.said)
    assert records.read("predictor", first.id).finished == 7
    assert train(wanted, workshop) == first


def test_an_order_that_was_prolonged_before_its_end_begins_anew_and_says_so(folder: Path) -> None:
    notes = Notes()
    workshop = Workshop.here(notes)
    first = train(order(folder, minutes=0.0), workshop)
    go_on("predictor", first.id, workshop, Sitting("cpu"), steps=3)
    again = train(order(folder), workshop)
    assert again.id != first.id
    assert any(f"`--resume {first.id}` goes on with that one" in text for text in notes.said)


@pytest.mark.parametrize(
    ("family", "preset"),
    [
        (family, name)
        for family, presets in (
            ("melgan", MELGANS),
            ("unagan", UNAGANS),
            ("predictor", (*PUBLISHED, *OWN)),
        )
        for name in presets
    ],
)
def test_minutes_limit_a_sitting_of_any_preset_and_leave_its_steps(
    folder: Path, family: str, preset: str
) -> None:
    timed = order(folder, family, preset=preset, steps=None, overrides={}, minutes=60.0)
    assert ordered_settings(timed) == families.preset(family, preset)


def test_a_cosine_may_be_chosen_where_steps_are_given_with_it(folder: Path) -> None:
    changes = {"preset": "published-script", "overrides": {"schedule": "cosine"}}
    assert ordered_settings(order(folder, "melgan", **changes, steps=3)).steps == 3
    with pytest.raises(SettingsMismatchError, match="a cosine must know the number of steps"):
        ordered_settings(order(folder, "melgan", **changes, steps=None, minutes=1.0))


def test_a_training_begun_by_time_alone_needs_an_end_to_go_on(folder: Path) -> None:
    workshop = Workshop.here(Notes())
    timed = order(
        folder,
        "unagan",
        preset="published-script",
        steps=None,
        minutes=0.0,
        overrides=NARROW_UNAGAN,
    )
    first = train(timed, workshop)
    with pytest.raises(InvalidInputError, match="give --steps or --minutes"):
        go_on("unagan", first.id, workshop, Sitting("cpu"))
    models = ModelStore(workshop.store)
    go_on("unagan", first.id, workshop, Sitting("cpu", minutes=0.0))
    assert models.find("unagan", f"{first.id}@2").config["figures"]
    go_on("unagan", first.id, workshop, Sitting("cpu"), steps=3)
    assert models.find("unagan", f"{first.id}@3").config["figures"]


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
