import shlex
from dataclasses import replace

import pytest

from services.cli.training.card import card, command
from services.cli.training.course import Course
from services.cli.training.record import Record

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
    folder="/somewhere/birds",
    files={"a.wav": "00", "b.wav": "11"},
)
COURSE = Course().at(2, {"validation/error": 1.0}, "validation/error")
CONFIG = {"training": {"validation_files": ["b.wav"]}}


def test_the_card_tells_how_the_model_came_about() -> None:
    told = card(RECORD, COURSE, CONFIG)
    assert "# melgan abc12345, step 2" in told
    assert "Trained on birds, 2 of 4 steps" in told
    assert "Held out: b.wav" in told
    assert "the same files judge it" in told
    assert "| validation/error | 1 |" in told
    assert "| generator.ngf | 8 |" in told


def test_the_card_names_what_the_folder_must_hold_and_not_where_it_was() -> None:
    told = card(RECORD, COURSE, CONFIG)
    assert (
        "`demiurge train melgan --recorded FOLDER --preset demo-cpu --seed 7 --steps 4 --every 1 "
        "--ngf 8`, where FOLDER holds the recordings of that SHA-256, here called birds" in told
    )
    assert RECORD.corpus_sha256 in told
    assert "somewhere" not in told


def test_a_database_is_called_by_its_name() -> None:
    told = card(replace(RECORD, folder=""), COURSE, CONFIG)
    assert "--database birds" in told
    assert "FOLDER" not in told


@pytest.mark.parametrize(("every", "validated"), [(None, "2"), (1, "1")])
def test_a_training_ended_by_time_is_made_again_by_its_step(
    every: int | None, validated: str
) -> None:
    timed = replace(RECORD, steps=None, every=every, settings={"steps": None})
    words = shlex.split(command(timed, 2))
    assert words[words.index("--steps") + 1] == "2"
    assert words[words.index("--every") + 1] == validated


def test_steps_that_follow_from_the_recordings_are_left_to_them() -> None:
    predictor = replace(RECORD, family="predictor", steps=None, settings={}, overrides={})
    assert "--steps" not in command(predictor, 2)
