"""`demiurge doctor --deep` over what a real run left: flipped bits, lost objects, a lost index."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from demiurge.query.v1 import query_service_pb2 as pb
from qdrant_edge import EdgeShard, ScrollRequest, UpdateOperation
from typer.testing import CliRunner

from services.cli.main import app
from services.runtime.model_store import ModelStore
from tests.conftest import MELGAN, PREDICTOR, UNAGAN, OpenStack, Stack, sound, spec

# One run over what was uploaded, one over what it generates.
ASKED: tuple[dict[str, Any], ...] = (
    {"database": "material", "frames": 12},
    {"frames": 12, "files": 2, "seconds": 0.3},
)


@dataclass(frozen=True)
class Examined:
    """What the doctor said, and its exit code."""

    lines: list[str]
    exit_code: int

    def about(self, text: str) -> str:
        """The line that names `text`, and what to do about it."""
        [at] = [number for number, line in enumerate(self.lines) if text in line]
        return "\n".join(self.lines[at : at + 2])

    @property
    def wrong(self) -> list[str]:
        marks = ("missing", "damaged", "differs")
        return [line for line in self.lines if line.startswith(marks)]


def examine(stack: Stack | None, *options: str, folder: Path | None = None) -> Examined:
    """`demiurge doctor --deep`, asking the stack's services, or its own over the same folders."""
    folder = stack.folder if stack else folder
    assert folder
    environment = {
        "DEMIURGE_HOME": str(folder),
        "DEMIURGE_QUERY_FOLDER": str(folder / "query"),
        "DEMIURGE_QUERY_ADDRESS": stack.address if stack else "",
    }
    done = CliRunner().invoke(app, ["doctor", "--deep", *options], env=environment)
    return Examined(done.stdout.splitlines(), done.exit_code)


def flip(path: Path) -> None:
    """Turns one bit in the middle of a file around."""
    with path.open("r+b") as file:
        middle = path.stat().st_size // 2
        file.seek(middle)
        [byte] = file.read(1)
        file.seek(middle)
        file.write(bytes([byte ^ 1]))


@pytest.fixture(scope="module")
def made_and_folder(
    open_stack: OpenStack, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[bytes], Path]:
    """Runs of judged models that ended; the collection of the first has an alias."""
    folder = tmp_path_factory.mktemp("examined")
    with open_stack(folder) as stack:
        models = ModelStore(stack.store)
        for family, name in (("unagan", UNAGAN), ("melgan", MELGAN), ("predictor", PREDICTOR)):
            version = models.find(family, name)
            models.describe(version, figures={"silent_share": 0.5}, card="# judged", pictures={})
        stack.upload("prediction", "1.wav", sound(1.0, 1))
        for seed in (3, 4):
            stack.upload("material", f"{seed}.wav", sound(0.5, seed))
        made = pieces(stack)
        collection = min(listed(stack), key=lambda each: each.create_time.ToNanoseconds())
        request = pb.PublishCollectionRequest(collection_id=collection.id, alias="current")
        stack.call(stack.client.query.PublishCollection, request)
    return made, folder


def pieces(stack: Stack) -> list[bytes]:
    return [stack.piece(spec(**asked)) for asked in ASKED]


def listed(stack: Stack) -> list[pb.Collection]:
    request = pb.ListCollectionsRequest()
    return list(stack.call(stack.client.query.ListCollections, request).collections)


@pytest.fixture
def reopened(
    open_stack: OpenStack, made_and_folder: tuple[list[bytes], Path], tmp_path: Path
) -> Callable[[], AbstractContextManager[Stack]]:
    """Opens all services over a copy of what the run left, to be meddled with before."""
    shutil.copytree(made_and_folder[1], tmp_path, dirs_exist_ok=True)

    return lambda: open_stack(tmp_path)


@pytest.fixture
def made(made_and_folder: tuple[list[bytes], Path]) -> list[bytes]:
    return made_and_folder[0]


@pytest.fixture
def stack(reopened: Callable[[], AbstractContextManager[Stack]]) -> Iterator[Stack]:
    with reopened() as opened:
        yield opened


def current(stack: Stack) -> pb.Collection:
    request = pb.GetCollectionRequest(collection_id="current")
    return stack.call(stack.client.query.GetCollection, request).collection


def path_of(stack: Stack, prefix: str, suffix: str = "") -> Path:
    """The first object's file below `prefix`."""
    keys = stack.store.keys(prefix)
    return stack.folder / "store" / next(key for key in keys if key.endswith(suffix))


def test_after_a_run_nothing_is_wrong(stack: Stack) -> None:
    examined = examine(stack)

    assert (examined.wrong, examined.exit_code) == ([], 0)
    assert "ok      references" in "\n".join(examined.lines)
    assert "ok      collection" in examined.about(", current: ")


def test_a_flipped_bit_is_found_and_named_in_every_object(stack: Stack) -> None:
    keys = [key for key in stack.store.keys("") if stack.store.stat(key).size_bytes]
    kinds = {key.split("/")[0] for key in keys}
    own = {"aliases", "audio", "collections", "descriptors", "markers", "models", "renders", "runs"}
    assert kinds == own
    for key in keys:
        flip(stack.folder / "store" / key)

    examined = examine(stack)

    assert examined.exit_code == 1
    for key in keys:
        said = examined.about(f" {key}: its bytes are not what was stored")
        assert said.startswith("damaged")
        assert "-> " in said
    assert listed(stack), "without --mend nothing is changed"


@pytest.mark.parametrize(
    ("prefix", "suffix"),
    [
        ("descriptors/", ""),
        ("audio/generated-", ""),
        ("renders/", ".wav"),
        ("runs/", "request.json"),
        ("runs/", "stages/1.json"),
        ("runs/", "run.json"),
        ("collections/", "spec.json"),
        ("collections/", "published.json"),
        ("collections/", ""),
    ],
)
def test_what_is_set_aside_is_made_again_by_the_run(
    stack: Stack, made: list[bytes], prefix: str, suffix: str
) -> None:
    sources = "sources/" if prefix == "collections/" and not suffix else ""
    collection = current(stack)
    path = path_of(stack, f"{prefix}{collection.id}/{sources}" if sources else prefix, suffix)
    key = path.relative_to(stack.folder / "store").as_posix()
    whole = path.read_bytes()
    flip(path)
    flipped = path.read_bytes()

    mended = examine(stack, "--mend")
    assert mended.exit_code == 1, "something is left to do"
    assert f"now corrupt/{key}" in mended.about(f" {key}: its bytes")
    assert stack.store.read(f"corrupt/{key}") == flipped
    assert not path.exists()
    assert pieces(stack) == made

    after = examine(stack)
    assert (after.wrong, after.exit_code) == ([], 0)
    if prefix in {"descriptors/", "renders/"}:
        assert path.read_bytes() == whole


def test_what_people_brought_is_to_be_brought_again(stack: Stack, made: list[bytes]) -> None:
    uploaded = path_of(stack, "audio/material/", "3.wav")
    weights = path_of(stack, f"models/predictor/{PREDICTOR}/", "model.safetensors")
    content = {path: path.read_bytes() for path in (uploaded, weights)}
    version = ModelStore(stack.store).find("predictor", PREDICTOR)
    for path in content:
        flip(path)

    mended = examine(stack, "--mend")
    assert "upload it again" in mended.about("audio/material/3.wav: its bytes")
    assert "`demiurge import`" in mended.about(f"{version.weights_key}: its bytes")
    missing = examine(stack)
    assert "needed by model" in missing.about(f"{version.weights_key}: not there")
    said = missing.about("audio/material/3.wav: not there")
    assert "needed by collection " in said
    assert "run run-" in said

    stack.upload("material", "3.wav", content[uploaded])
    stack.store.put_new(version.weights_key, content[weights])
    after = examine(stack)
    assert (after.wrong, after.exit_code) == ([], 0)
    assert pieces(stack) == made


def test_an_object_that_was_replaced_is_named_with_the_run_that_needs_it(stack: Stack) -> None:
    replaced = path_of(stack, "audio/prediction/")
    replaced.unlink()
    replaced.write_bytes(sound(1.0, 9))

    said = examine(stack).about("audio/prediction/1.wav: another content than that needed by run")
    assert said.startswith("differs")
    examine(stack, "--mend")

    assert stack.store.read("audio/prediction/1.wav") == sound(1.0, 9)
    replaced.unlink()
    stack.upload("prediction", "1.wav", sound(1.0, 1))
    assert examine(stack).exit_code == 0


def test_an_index_that_was_lost_is_rebuilt_from_the_store_alone(
    reopened: Callable[[], AbstractContextManager[Stack]], tmp_path: Path, made: list[bytes]
) -> None:
    shutil.rmtree(tmp_path / "query")
    looked = examine(None, folder=tmp_path)
    assert looked.exit_code == 1
    assert "the index has lost it" in "\n".join(looked.lines)
    assert "`demiurge doctor --deep --mend` rebuilds it" in "\n".join(looked.lines)

    mended = examine(None, "--mend", folder=tmp_path)
    assert mended.exit_code == 0
    assert [line[:18] for line in mended.lines if line.startswith("mended")] == [
        "mended  collection"
    ] * 2

    with reopened() as stack:
        collection = current(stack)
        assert (list(collection.aliases), collection.published) == (["current"], True)
        for key in list(stack.store.keys("renders/")):
            stack.store.delete(key)
        for key in list(stack.store.keys("runs/")):
            if key.endswith(("stages/4.json", "stages/5.json", "run.json")):
                stack.store.delete(key)
        assert pieces(stack) == made
        assert examine(stack).exit_code == 0


def test_points_lost_behind_the_back_of_the_index_are_found_and_brought_back(
    reopened: Callable[[], AbstractContextManager[Stack]], tmp_path: Path, made: list[bytes]
) -> None:
    shards = sorted((tmp_path / "query" / "shards").iterdir())
    for path in shards:
        shard = EdgeShard.load(str(path))
        [first, *_], _ = shard.scroll(ScrollRequest(limit=1))
        shard.update(UpdateOperation.delete_points([first.id]))
        shard.flush()
        shard.close()
    looked = examine(None, folder=tmp_path)
    assert (len(looked.wrong), looked.exit_code) == (len(shards), 1)
    assert "1 points missing, of" in "\n".join(looked.lines)

    assert examine(None, "--mend", folder=tmp_path).exit_code == 0

    with reopened() as stack:
        for key in list(stack.store.keys("")):
            if key.startswith("renders/") or key.endswith(("stages/4.json", "run.json")):
                stack.store.delete(key)
        assert pieces(stack) == made
        assert examine(stack).exit_code == 0


def test_a_deletion_cut_short_is_completed(stack: Stack) -> None:
    collection = current(stack)
    request = pb.DeleteCollectionRequest(collection_id=collection.id)
    kept = stack.store.read(key := next(stack.store.keys(f"collections/{collection.id}/sources/")))
    stack.call(stack.client.query.DeleteCollection, request)
    stack.store.put(key, kept)
    assert "its deletion was cut short" in examine(stack).about(collection.id)

    examined = examine(stack, "--mend")

    assert examined.exit_code == 0
    assert not any(collection.id in key for key in stack.store.keys("collections/"))


def test_no_store_where_services_are_elsewhere_is_not_all_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEMIURGE_HOME", str(tmp_path))
    monkeypatch.setenv("DEMIURGE_ADDRESS", "127.0.0.1:1")

    done = CliRunner().invoke(app, ["doctor", "--deep"])

    assert done.exit_code == 1
    assert "set DEMIURGE_STORE to the store of the services" in done.stdout


def test_mending_goes_with_looking_deep() -> None:
    refused = CliRunner().invoke(app, ["doctor", "--mend"])

    assert refused.exit_code == 2
    assert "--mend goes with --deep" in refused.stderr
