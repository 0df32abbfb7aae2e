"""Bulk work shared out among processes over one store: together they do what one does alone."""

import shutil
from hashlib import sha256
from pathlib import Path

import pytest

from services.runtime.object_store.folder import FolderStore
from tests.conftest import MELGAN, UNAGAN, sound
from tests.e2e.workspace import Workspace, ended

GENERATE = (
    "generate",
    *("--unagan", UNAGAN, "--melgan", MELGAN, "--duration", "0.3"),
    *("--files", "10", "--batch", "3", "--database", "new", "--no-fetch"),
)
EXTRACT = ("extract", "--database", "recordings", "--no-fetch")


def place(folder: Path, models: Path) -> Workspace:
    """A store with models and a database of seven recordings, one of which is none."""
    shutil.copytree(models, folder / "home" / "store")
    store = FolderStore(folder / "home" / "store")
    for number in range(6):
        store.put(f"audio/recordings/{number}.wav", sound(0.3, number))
    store.put("audio/recordings/text.wav", b"no sound" * 100)
    return Workspace(folder)


def made(work: Workspace, below: str) -> dict[str, str]:
    """Names and hashes of what is stored there."""
    found = (work.home / "store" / below).rglob("*.*")
    return {path.name: sha256(path.read_bytes()).hexdigest() for path in found}


@pytest.mark.parametrize(
    ("order", "below", "files"),
    [(GENERATE, "audio/new", 10), (EXTRACT, "descriptors", 6)],
    ids=["generate", "extract"],
)
def test_shards_at_the_same_time_make_what_one_process_makes(
    order: tuple[str, ...], below: str, files: int, tmp_path: Path, trained_models: Path
) -> None:
    alone, shared = (place(tmp_path / name, trained_models) for name in ("alone", "shared"))
    alone.output(*order)
    assert len(made(alone, below)) >= files

    shards = [shared.start(*order, "--shard", f"{index}/2") for index in range(2)]
    for process in shards:
        done = ended(process)
        assert done.returncode == 0, done.stderr

    assert made(shared, below) == made(alone, below)
    assert not [path for path in shared.folder.iterdir() if path.name != "home"]


def test_a_shard_without_work_is_done(tmp_path: Path, trained_models: Path) -> None:
    work = place(tmp_path, trained_models)
    assert work.output(*EXTRACT, "--shard", "998/999") == "descriptors"
    assert not made(work, "descriptors")


def test_a_database_that_is_not_there_is_named(tmp_path: Path, trained_models: Path) -> None:
    work = place(tmp_path, trained_models)
    assert "no audio database 'none'" in work.refusal("extract", "--database", "none")
