import math
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from services.cli.progress import Reporter
from services.cli.training import keeper as keeping
from services.cli.training.course import Course
from services.cli.training.fit import fit
from services.cli.training.journal import read_journal
from services.cli.training.keeper import Keeper
from services.cli.training.plan import Plan
from services.cli.training.record import Record
from services.cli.training.tracking import Tracker
from services.errors import InvalidInputError
from services.learning.world import ALONE
from services.runtime.model_store import ModelStore
from services.runtime.object_store.folder import FolderStore

RECORD = Record(
    family="melgan",
    id="abc12345",
    preset="demo-cpu",
    overrides={"generator.ngf": 8},
    settings={"generator": {"ngf": 8}, "steps": 4},
    seed=7,
    steps=4,
    every=1,
    corpus="birds",
    folder="birds",
    files={"a.wav": "00", "b.wav": "11"},
)


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

    waited_seconds = 0.0

    def __init__(self, *figures: float, happens: Callable[[int], object] = float) -> None:
        self.figures = figures
        self.happens = happens
        self.steps = 0

    def step(self) -> Mapping[str, Any]:
        self.steps += 1
        self.happens(self.steps)
        return {"loss": torch.tensor(1.0 / self.steps)}

    def validate(self) -> Mapping[str, float]:
        return {"error": self.figures[(self.steps - 1) % len(self.figures)], "other": -1.0}

    def weights(self) -> bytes:
        return save({"step": torch.tensor([float(self.steps)])})

    def config(self) -> dict[str, Any]:
        return {"family": "melgan", "training": {"validation_files": ["b.wav"]}}

    def examples(self) -> Mapping[str, Any]:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.steps = state["steps"]


@dataclass
class Desk:
    """A store, and trainings over it."""

    folder: Path
    record: Record = RECORD
    notes: Notes = field(default_factory=Notes)

    @property
    def store(self) -> FolderStore:
        return FolderStore(self.folder / "store")

    @property
    def models(self) -> ModelStore:
        return ModelStore(self.store)

    def train(self, trainer: Ramp, **plan: Any) -> Course:
        """From the newest checkpoint on."""
        values: dict[str, Any] = {"figure": "error", "steps": 4, "every": 1} | plan
        tracker = Tracker("abc12345", "", {}, self.folder / "wandb", self.notes.say)
        keeper = Keeper(self.record, self.store, tracker)
        course = Course()
        if stored := keeper.checkpoints.newest(self.notes.say):
            trainer.load_state_dict(stored[1]["trainer"])
            course = Course(**stored[1]["course"])
        keeper.goes_on_from(trainer.steps)
        chosen = Plan("melgan", **values)
        return fit(trainer, chosen, course, keeper, self.notes, ALONE)

    def logged(self) -> list[int]:
        return [entry.step for entry in read_journal(self.store, "melgan", "abc12345")]

    def stored_steps(self) -> list[str]:
        return sorted(
            path.name for path in (self.folder / "store/checkpoints/melgan/abc12345").glob("*.pt")
        )


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    return Desk(tmp_path)


def test_the_best_step_is_chosen_by_the_figure_and_the_last_is_kept(desk: Desk) -> None:
    course = desk.train(Ramp(3.0, 1.0, 2.0, 4.0))
    best = desk.models.find("melgan", "abc12345")
    assert best.version_id == "abc12345@2"
    assert best.config["figures"]["validation/error"] == 1.0
    assert (course.best, course.best_step) == (1.0, 2)
    assert desk.models.find("melgan", "abc12345@4").step == 4
    assert desk.notes.last == ("training melgan", 4, 4, "error 4")
    assert not desk.notes.said


def test_a_figure_that_is_no_number_never_counts_as_best(desk: Desk) -> None:
    desk.train(Ramp(math.nan, 2.0, math.nan), steps=3)
    assert desk.models.find("melgan", "abc12345").step == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_after_the_step_and_the_training_goes_on(desk: Desk, number: int) -> None:
    before = signal.getsignal(number)

    def told(step: int) -> None:
        if step == 3:
            os.kill(os.getpid(), number)

    figures = (3.0, 1.0, 2.0, 4.0)
    with pytest.raises(SystemExit) as stopped:
        desk.train(Ramp(*figures, happens=told), every=2)
    assert stopped.value.code == 128 + number
    assert "stopped after step 3" in desk.notes.said[0]
    assert "--resume abc12345" in desk.notes.said[0]
    assert "--minutes" not in desk.notes.said[0]
    assert signal.getsignal(number) is before
    assert desk.stored_steps() == ["2.pt", "3.pt"]
    again = Ramp(*figures)
    course = desk.train(again, every=2)
    assert again.steps == 4
    assert course.best_step == 2
    assert desk.logged() == [1, 2, 3, 4]


def test_time_ends_a_training_with_a_version_and_another_sitting_goes_on(desk: Desk) -> None:
    desk.train(Ramp(1.0), steps=None, every=None, minutes=0.0)
    assert desk.models.find("melgan", "abc12345").step == 1
    again = Ramp(0.5)
    desk.train(again, steps=None, every=None, minutes=0.0)
    assert again.steps == 2
    assert desk.models.find("melgan", "abc12345").step == 2
    assert desk.logged() == [1, 2]


def test_what_stops_a_training_by_time_names_a_call_that_ends(desk: Desk) -> None:
    def told(step: int) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit):
        desk.train(Ramp(1.0, happens=told), steps=None, every=None, minutes=30.0)
    assert "`demiurge train melgan --resume abc12345 --minutes 30`" in desk.notes.said[0]


def test_what_was_judged_keeps_its_card_when_its_training_goes_on(desk: Desk) -> None:
    desk.train(Ramp(1.0), steps=2, every=2)
    version = desk.models.find("melgan", "abc12345")
    desk.models.describe(version, figures={"error": 1.0}, card="judged", pictures={})
    desk.train(Ramp(1.0), steps=2, every=2)
    desk.train(Ramp(2.0), steps=4, every=2)
    assert desk.models.read_card(version) == "judged"
    assert desk.models.find("melgan", "abc12345").step == 2


def test_each_validation_can_be_heard(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[int] = []
    monkeypatch.setattr(Tracker, "hears", True)
    monkeypatch.setattr(Tracker, "listen", lambda tracker, step, examples: heard.append(step))  # noqa: ARG005
    desk.train(Ramp(1.0, 2.0, 3.0, 4.0))
    assert heard == [1, 2, 3, 4]


def test_sound_that_nobody_hears_is_not_made(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Ramp] = []
    monkeypatch.setattr(Ramp, "examples", made.append)
    desk.train(Ramp(1.0, 2.0))
    assert not made


def test_the_pace_is_that_of_the_steps_whatever_comes_between(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0

    def passes(seconds: float) -> None:
        nonlocal now
        now += seconds

    class Slow(Ramp):
        def validate(self) -> Mapping[str, float]:
            passes(50.0)
            return super().validate()

        def state_dict(self) -> dict[str, Any]:
            passes(100.0)
            return super().state_dict()

        def weights(self) -> bytes:
            passes(200.0)
            return super().weights()

    monkeypatch.setattr(time, "monotonic", lambda: now)
    # Longer than the time from one checkpoint to the next, so that some lie between validations.
    desk.train(
        Slow(2.0, 1.0, happens=lambda step: passes(0.5)),  # noqa: ARG005
        steps=40,
        every=20,
        checkpoint_minutes=0.02,
    )
    entries = read_journal(desk.store, "melgan", "abc12345")
    paces = [entry.figures["steps_per_second"] for entry in entries]
    assert paces == pytest.approx([2.0] * 20)


def test_the_newest_two_checkpoints_are_kept_and_a_damaged_one_is_told(desk: Desk) -> None:
    desk.train(Ramp(1.0))
    assert desk.stored_steps() == ["3.pt", "4.pt"]
    newest = desk.folder / "store/checkpoints/melgan/abc12345/4.pt"
    newest.write_bytes(newest.read_bytes()[:-100])
    again = Ramp(1.0)
    desk.train(again, steps=5)
    assert again.steps == 5
    (said,) = desk.notes.said
    assert said.startswith("left out: checkpoint checkpoints/melgan/abc12345/4.pt")
    assert desk.logged() == [1, 2, 3, 4, 5]


def test_without_a_pointer_checkpoints_are_found_and_without_any_it_begins_anew(desk: Desk) -> None:
    desk.train(Ramp(1.0))
    folder = desk.folder / "store/checkpoints/melgan/abc12345"
    (folder / "newest.json").write_bytes(b"[")
    again = Ramp(1.0)
    desk.train(again, steps=5)
    assert again.steps == 5
    assert not desk.notes.said
    for path in folder.glob("*.pt"):
        path.write_bytes(b"no checkpoint")
    desk.train(Ramp(1.0), steps=6)
    assert "no checkpoint can be read: the training begins anew" in desk.notes.said[-1]
    assert desk.logged() == [1, 2, 3, 4, 5, 6]


def test_a_figure_that_there_is_not_is_refused_with_those_there_are(desk: Desk) -> None:
    with pytest.raises(InvalidInputError, match=r"validation/beauty.*validation/error"):
        desk.train(Ramp(1.0), figure="beauty")


def test_a_version_that_a_kill_prevented_is_stored_by_the_next_sitting(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*arguments: Any, **keywords: Any) -> None:
        raise ConnectionError

    with monkeypatch.context() as patch:
        patch.setattr(keeping.Keeper, "version", killed)
        with pytest.raises(ConnectionError):
            desk.train(Ramp(1.0), steps=1)
    desk.train(Ramp(1.0), steps=1)
    assert desk.models.find("melgan", "abc12345").step == 1


def test_the_corpus_of_a_record_is_that_of_its_recordings() -> None:
    assert RECORD.key == replace(RECORD, id="other", folder="elsewhere").key
    assert RECORD.key != replace(RECORD, files={"a.wav": "00"}).key
    assert RECORD.key != replace(RECORD, seed=8).key


def test_without_wandb_a_training_goes_on(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    desk.train(Ramp(1.0, 0.5), steps=2)
    assert desk.models.find("melgan", "abc12345").step == 2
    (said,) = desk.notes.said
    assert "W&B does not work" in said


def test_patience_ends_a_training_whose_figure_gets_no_better(desk: Desk) -> None:
    trainer = Ramp(3.0, 1.0, 2.0, 1.0, 0.5)
    course = desk.train(trainer, steps=5, patience=2)
    assert (trainer.steps, course.best_step, course.worse) == (4, 2, 2)
    assert desk.models.find("melgan", "abc12345@4").step == 4
    assert (
        "over after step 4: 2 validations were no better than that of step 2" in desk.notes.said[0]
    )


def test_a_better_figure_restores_patience(desk: Desk) -> None:
    trainer = Ramp(3.0, 4.0, 2.0, 4.0, 1.0)
    assert desk.train(trainer, steps=5, patience=2).best_step == 5


def test_patience_goes_on_where_it_was_after_a_stop(desk: Desk) -> None:
    """Stopped after one of two validations that are no better, the next one ends it."""

    def told(step: int) -> None:
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    figures = (3.0, 1.0, 2.0, 4.0, 0.5)
    with pytest.raises(SystemExit):
        desk.train(Ramp(*figures, happens=told), steps=5, patience=2)
    again = Ramp(*figures)
    course = desk.train(again, steps=5, patience=2)
    assert (again.steps, course.best_step) == (4, 2)
    over = Ramp(*figures)
    assert desk.train(over, steps=5, patience=2) == course
    assert over.steps == 4


def test_without_patience_all_steps_are_trained(desk: Desk) -> None:
    trainer = Ramp(1.0, 2.0, 3.0, 4.0, 5.0)
    desk.train(trainer, steps=5)
    assert trainer.steps == 5


def test_a_training_that_patience_has_ended_says_so_when_it_is_to_go_on(desk: Desk) -> None:
    plan = {"steps": 9, "patience": 2}
    desk.train(Ramp(1.0, 2.0, 3.0, 0.5), **plan)
    desk.notes.said.clear()
    again = Ramp(1.0, 2.0, 3.0, 0.5)
    course = desk.train(again, **plan)
    assert (again.steps, course.best_step) == (3, 1)
    assert desk.notes.said == [
        "training melgan: over after step 3: 2 validations were no better than that of step 1"
    ]
