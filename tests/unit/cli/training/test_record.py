from pathlib import Path

import pytest

from services.cli.corpus import folder_corpus
from services.cli.progress import Reporter
from services.cli.training.record import Record, Records, files_of
from services.errors import ConflictError
from services.runtime.object_store.folder import FolderStore
from tests.conftest import sound


class Notes(Reporter):
    def __init__(self) -> None:
        self.updates: list[tuple[str, int, int]] = []

    def say(self, text: str) -> None:
        raise AssertionError(text)

    def update(self, name: str, completed: int, total: int, note: str = "") -> None:  # noqa: ARG002
        self.updates.append((name, completed, total))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "voices"
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}.wav").write_bytes(sound(0.1, ord(name)))
    return folder


def record(**changes: object) -> Record:
    values = {
        "family": "melgan",
        "id": "abc12345",
        "preset": "demo-cpu",
        "overrides": {},
        "settings": {"steps": 4},
        "seed": 7,
        "steps": 4,
        "every": None,
        "corpus": "voices",
        "folder": "voices",
        "files": {"a.wav": "00"},
    }
    return Record(**(values | changes))  # type: ignore[arg-type]


def test_a_recording_that_cannot_be_opened_is_left_out_and_the_others_are_counted(
    folder: Path,
) -> None:
    corpus = folder_corpus(folder)
    (folder / "b.wav").unlink()
    notes = Notes()
    files = files_of(corpus, notes)
    assert list(files) == ["a.wav", "c.wav"]
    assert notes.updates == [("reading recordings", done, 3) for done in (1, 2, 3)]


def test_the_corpus_of_a_record_is_the_one_that_uploads_name(folder: Path) -> None:
    corpus = folder_corpus(folder)
    assert record(files=files_of(corpus, Notes())).corpus_sha256 == corpus.fingerprint


def test_a_recording_that_can_no_longer_be_opened_is_missing(folder: Path) -> None:
    began = record(files=files_of(folder_corpus(folder), Notes()))
    corpus = folder_corpus(folder)
    (folder / "b.wav").unlink()
    with pytest.raises(ConflictError, match=r"b\.wav is missing"):
        began.refuse_other(files_of(corpus, Notes()))


def test_only_who_began_an_order_is_found_by_it(tmp_path: Path) -> None:
    records = Records(FolderStore(tmp_path / "store"))
    order = record()
    records.begin(order)
    records.finish(record(finished=4), best=3)
    earlier = records.like(order)
    assert earlier
    assert (earlier.record.finished, earlier.best) == (4, 3)
    longer = record(steps=8, settings={"steps": 8}, finished=8)
    records.finish(longer, best=7)
    assert records.like(longer) is None
    earlier = records.like(order)
    assert earlier
    assert (earlier.record.steps, earlier.best) == (8, 3)
