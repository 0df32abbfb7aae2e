import math
from pathlib import Path

import pytest

from services.cli.training import journal
from services.cli.training.journal import Journal, journal_key, journals, read_journal, series
from services.errors import CorruptObjectError, NotFoundError
from services.runtime.model_store import ModelStore
from services.runtime.object_store.folder import FolderStore


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path)


def steps(store: FolderStore) -> list[int]:
    return [entry.step for entry in read_journal(store, "melgan", "abc12345")]


def test_figures_come_back_by_step(store: FolderStore) -> None:
    journal = Journal(store, "melgan", "abc12345")
    journal.record(10, {"loss": 0.5})
    journal.record(20, {"loss": 0.25, "learning_rate": 1e-4})
    journal.flush()
    entries = read_journal(store, "melgan", "abc12345")
    assert series(entries) == {"learning_rate": [(20, 1e-4)], "loss": [(10, 0.5), (20, 0.25)]}
    assert entries[0].time.utcoffset() is not None


def test_what_is_not_flushed_is_not_kept(store: FolderStore) -> None:
    journal = Journal(store, "melgan", "abc12345")
    journal.record(10, {"loss": 0.5})
    journal.flush()
    journal.record(20, {"loss": 0.5})
    assert steps(store) == [10]


def test_losses_and_validation_of_one_step_share_a_line(store: FolderStore) -> None:
    journal = Journal(store, "melgan", "abc12345")
    journal.record(10, {"loss": 0.5})
    journal.record(10, {"validation/error": 2.0})
    journal.flush()
    (entry,) = read_journal(store, "melgan", "abc12345")
    assert entry.figures == {"loss": 0.5, "validation/error": 2.0}


def test_a_resumed_training_writes_no_step_twice(store: FolderStore) -> None:
    first = Journal(store, "melgan", "abc12345")
    for step in (10, 20, 30):
        first.record(step, {"loss": 1.0})
    first.flush()
    # Killed, and resumed from the checkpoint of step 20.
    second = Journal(store, "melgan", "abc12345")
    second.rewind(20)
    second.record(30, {"loss": 0.5})
    second.flush()
    assert series(read_journal(store, "melgan", "abc12345"))["loss"] == [
        (10, 1.0),
        (20, 1.0),
        (30, 0.5),
    ]


def test_an_earlier_step_is_refused_without_rewinding(store: FolderStore) -> None:
    journal = Journal(store, "melgan", "abc12345")
    journal.record(20, {"loss": 1.0})
    with pytest.raises(ValueError, match="step 10 comes after step 20"):
        journal.record(10, {"loss": 1.0})


def test_a_figure_that_is_no_number_stays_one_that_is_not(store: FolderStore) -> None:
    journal = Journal(store, "melgan", "abc12345")
    journal.record(10, {"loss": math.nan, "other": math.inf})
    journal.flush()
    (entry,) = read_journal(store, "melgan", "abc12345")
    assert math.isnan(entry.figures["loss"])
    assert math.isnan(entry.figures["other"])


def test_a_long_log_is_thinned_but_for_validations(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "MOST_LINES", 8)
    log = Journal(store, "melgan", "abc12345")
    for step in range(1, 41):
        log.record(step, {"loss": 1.0} | ({"validation/error": 1.0} if step % 10 == 0 else {}))
    log.flush()
    kept = read_journal(store, "melgan", "abc12345")
    assert len(kept) <= 8
    assert [step for step, _ in series(kept)["validation/error"]] == [10, 20, 30, 40]
    assert kept[0].step == 1


def test_a_damaged_log_is_named_and_begun_anew(store: FolderStore) -> None:
    store.put(journal_key("melgan", "abc12345"), b'{"step": 1}\n')
    with pytest.raises(CorruptObjectError, match=r"melgan/abc12345/log\.jsonl is no log"):
        read_journal(store, "melgan", "abc12345")
    journal = Journal(store, "melgan", "abc12345")
    journal.record(5, {"loss": 1.0})
    journal.flush()
    assert steps(store) == [5]


def test_a_training_without_a_log_is_not_found(store: FolderStore) -> None:
    with pytest.raises(NotFoundError, match="unknown1"):
        read_journal(store, "melgan", "unknown1")


def test_a_log_alone_is_no_model_and_disturbs_none(store: FolderStore) -> None:
    models = ModelStore(store)
    models.save("melgan", "abc12345", 1, weights=b"w", config={}, card="", best=True)
    for run_id in ("abc12345", "unfinished"):
        journal = Journal(store, "melgan", run_id)
        journal.record(1, {"loss": 1.0})
        journal.flush()
    assert [model.id for model in models.list("melgan")] == ["abc12345"]
    assert list(journals(store)) == [("melgan", "abc12345"), ("melgan", "unfinished")]
