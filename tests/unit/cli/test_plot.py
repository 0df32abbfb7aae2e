"""Curves of trainings in the terminal and as a picture, from their logs alone."""

import io
import math
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from typer.testing import CliRunner, Result

from services.cli.curves import png, table
from services.cli.main import app
from services.cli.training.journal import Journal, journal_key, read_journal
from services.errors import InvalidInputError, NotFoundError
from services.runtime.object_store.folder import FolderStore


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FolderStore:
    monkeypatch.setenv("DEMIURGE_STORE", str(tmp_path / "store"))
    return FolderStore(tmp_path / "store")


def logged(store: FolderStore, run_id: str = "abc12345", family: str = "melgan") -> None:
    journal = Journal(store, family, run_id)
    for step in range(10, 410, 10):
        norms = {"gradient_norm/generator": 2.0, "gradient_norm/discriminator": 3.0}
        journal.record(step, {"loss": 400.0 - step, "flat": 7.0} | norms)
        if step % 100 == 0:
            journal.record(step, {"validation/mel_error": abs(step - 300) + 1.0})
    journal.flush()


def plot(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["runs", "plot", *arguments], catch_exceptions=False)


def test_a_training_is_told_in_a_line_a_figure(store: FolderStore) -> None:
    logged(store)
    title, _, header, *lines = plot("abc12345").output.splitlines()
    assert title.startswith("melgan abc12345: step 400, ")
    assert header.split() == ["figure", "course", "first", "last", "least", "at", "step"]
    told = {line.split()[0]: line.split() for line in lines}
    assert told["loss"][1] == "".join(sorted(told["loss"][1], reverse=True))
    assert told["loss"][1][0] == "█"
    assert told["loss"][1][-1] == "▁"
    assert told["loss"][2:] == ["390", "0", "0", "400"]
    assert told["validation/mel_error"][-4:] == ["201", "101", "1", "300"]
    assert set(told["flat"][1]) == {"▁"}


def test_the_picture_shows_a_panel_a_figure(store: FolderStore, tmp_path: Path) -> None:
    logged(store)
    out = tmp_path / "pictures" / "curves.png"
    assert plot("abc12345", "--out", str(out)).output.splitlines()[-1] == str(out)
    picture = imread(out)
    entries = read_journal(store, "melgan", "abc12345")
    fewer = [entry._replace(figures={"loss": entry.figures["loss"]}) for entry in entries]
    # Four panels need a row more than one: loss, flat, the norms together, the validation.
    assert picture.shape[0] > imread(io.BytesIO(png(fewer, "title"))).shape[0]
    assert np.ptp(picture[..., :3]) > 0.5
    assert out.read_bytes() == png(entries, plot("abc12345").output.splitlines()[0])


def test_a_training_that_has_come_apart_can_still_be_seen(store: FolderStore) -> None:
    journal = Journal(store, "unagan", "broken12")
    for step in (1, 2, 3):
        journal.record(step, {"loss": math.nan, "other": 1.0 if step < 3 else math.inf})
    journal.flush()
    entries = read_journal(store, "unagan", "broken12")
    loss, other = (line.split() for line in table(entries).splitlines()[1:])
    assert loss == ["loss", "nan", "nan", "nan"]
    assert other[-4:] == ["1", "nan", "1", "1"]
    assert png(entries, "title")


def test_a_training_of_one_step_has_a_picture(store: FolderStore) -> None:
    journal = Journal(store, "unagan", "new12345")
    journal.record(1, {"loss": 1.0})
    journal.flush()
    assert "loss" in plot("new12345").output
    assert png(read_journal(store, "unagan", "new12345"), "title")


def test_a_terminal_of_few_characters_gets_plain_ones(store: FolderStore) -> None:
    logged(store)
    assert table(read_journal(store, "melgan", "abc12345"), "ascii").isascii()


def test_without_an_id_trainings_are_listed(store: FolderStore) -> None:
    assert "no training has a log yet" in plot().output
    logged(store)
    logged(store, "other123", "unagan")
    store.put(journal_key("predictor", "damaged1"), b"?")
    header, *rows = (line.split() for line in plot().output.splitlines())
    assert header == ["family", "id", "step", "logged"]
    assert sorted(row[:3] for row in rows) == [
        ["melgan", "abc12345", "400"],
        ["predictor", "damaged1", "damaged"],
        ["unagan", "other123", "400"],
    ]


def test_an_id_that_no_training_has_is_named_beside_those_there_are(store: FolderStore) -> None:
    logged(store)
    with pytest.raises(NotFoundError, match="no training 'wrong' has a log; there are: abc12345"):
        plot("wrong")


def test_an_id_of_several_families_asks_for_one(store: FolderStore) -> None:
    logged(store)
    logged(store, family="unagan")
    with pytest.raises(InvalidInputError, match=r"--family \(melgan, unagan\)"):
        plot("abc12345")
    assert plot("abc12345", "--family", "unagan").output.startswith("unagan abc12345")


def test_only_a_picture_can_be_drawn_into(store: FolderStore, tmp_path: Path) -> None:
    logged(store)
    with pytest.raises(InvalidInputError, match="--out"):
        plot("abc12345", "--out", str(tmp_path / "curves.txt"))
