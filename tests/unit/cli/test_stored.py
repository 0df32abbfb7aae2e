"""What the doctor finds in a store, be it a folder or S3."""

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import orjson
import pytest
from minio import Minio

from services.cli.finding import Finding
from services.cli.progress import Progress
from services.cli.stored import StoreCheck
from services.runtime.object_store.folder import FolderStore
from services.runtime.object_store.port import ObjectStore
from services.runtime.object_store.s3 import S3Store
from services.runtime.object_store.s3_upload import HASH_HEADER
from services.runtime.settings import S3Settings

Write = Callable[[str, bytes], None]


class Place(NamedTuple):
    """A store, and how its objects are got at without it."""

    store: ObjectStore
    overwrite: Write
    """Changes an object's bytes and nothing that is recorded of it."""
    lay: Write
    """An object that nothing is recorded of."""


def folder(request: pytest.FixtureRequest) -> Place:
    root: Path = request.getfixturevalue("tmp_path")

    def overwrite(key: str, content: bytes) -> None:
        # Into the same file: what is recorded with it stays as it is.
        (root / key).write_bytes(content)

    def lay(key: str, content: bytes) -> None:
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).write_bytes(content)

    return Place(FolderStore(root), overwrite, lay)


def bucket(request: pytest.FixtureRequest) -> Place:
    server = request.getfixturevalue("seaweed")
    names = {
        name.removeprefix("DEMIURGE_S3_").lower(): value
        for name, value in server.environment.items()
    }
    settings = S3Settings(**names)
    name, _, prefix = server.location().removeprefix("s3://").partition("/")
    client = Minio(
        settings.endpoint.partition("://")[2],
        access_key=settings.access_key_file.read_text().strip(),
        secret_key=settings.secret_key_file.read_text().strip(),
        secure=False,
        region=settings.region,
    )

    def overwrite(key: str, content: bytes) -> None:
        recorded = client.stat_object(name, f"{prefix}/{key}").metadata[HASH_HEADER]
        kept = {HASH_HEADER.removeprefix("x-amz-meta-"): recorded}
        body = io.BytesIO(content)
        client.put_object(name, f"{prefix}/{key}", body, len(content), metadata=kept)

    def lay(key: str, content: bytes) -> None:
        client.put_object(name, f"{prefix}/{key}", io.BytesIO(content), len(content))

    return Place(S3Store(name, prefix, settings), overwrite, lay)


@pytest.fixture(params=[folder, bucket])
def place(request: pytest.FixtureRequest) -> Place:
    """A store that is a folder, and one that is a bucket."""
    place: Place = request.param(request)
    return place


def examined(store: ObjectStore, *, mend: bool = False) -> list[Finding]:
    """What is wrong."""
    with Progress() as progress:
        check = StoreCheck(store, progress, mend=mend)
        findings = [*check.objects(), *check.references(), *check.runs()]
    return [finding for finding in findings if finding.mend]


def reference(key: str, content: bytes) -> dict[str, str]:
    return {"key": key, "sha256": hashlib.sha256(content).hexdigest()}


def test_damaged_objects_are_moved_aside_as_often_as_it_takes(place: Place) -> None:
    store, overwrite, _ = place
    for attempt in (b"first", b"second"):
        store.put("audio/birds/wren.wav", b"good")
        assert examined(store) == []
        overwrite("audio/birds/wren.wav", attempt)
        [found] = examined(store)
        assert "--mend" in found.mend
        assert store.exists("audio/birds/wren.wav")

        [found] = examined(store, mend=True)
        assert found.found.startswith("audio/birds/wren.wav: its bytes are not what was stored")
        assert "upload it again" in found.mend
        assert not store.exists("audio/birds/wren.wav")

    assert store.read("corrupt/audio/birds/wren.wav") == b"first"
    assert store.read("corrupt/audio/birds/wren.wav.1") == b"second"
    assert examined(store) == []


def test_what_lies_beside_a_model_is_brought_back_without_training_it_again(place: Place) -> None:
    advice = {
        "models/melgan/m/log.jsonl": "begins it anew",
        "models/melgan/m/9/figures.json": "`demiurge evaluate`",
        "models/melgan/m/9/model.safetensors": "train the model again",
        "checkpoints/melgan/m/9.pt": "goes on from the one before",
    }
    for key in advice:
        place.store.put(key, b"{}")
        place.overwrite(key, b"xx")
    with Progress() as progress:
        findings = [*StoreCheck(place.store, progress, mend=False).objects()]
    told = {finding.found.partition(":")[0]: finding.mend for finding in findings}
    assert all(wanted in told[key] for key, wanted in advice.items())


def test_references_are_followed_and_name_who_needs_them(place: Place) -> None:
    store, _, _ = place
    weights, sound = b"weights", b"sound"
    model = "models/melgan/voice"
    store.put(f"{model}/best.json", b'{"step": 7}')
    for run in ("run-1", "run-2"):
        record = {"snapshot": {"material": [reference("audio/a/b.wav", sound)]}}
        store.put(f"runs/{run}/request.json", orjson.dumps(record))
    gone = examined(store)
    assert [finding.found for finding in gone] == [
        f"{model}/7/config.json: not there, needed by model melgan/voice",
        "audio/a/b.wav: not there, needed by run run-1, run run-2",
    ]

    config = {"weights_sha256": hashlib.sha256(weights).hexdigest()}
    store.put(f"{model}/7/config.json", orjson.dumps(config))
    store.put(f"{model}/7/model.safetensors", weights)
    store.put("audio/a/b.wav", sound)
    assert examined(store) == []


@pytest.mark.parametrize("laid_in", [False, True])
def test_another_content_than_a_run_needs_is_told_with_the_run_and_never_moved(
    place: Place, laid_in: bool
) -> None:
    store, _, lay = place
    record = {"audio": [reference("audio/a/b.wav", b"former")]}
    store.put("runs/run-1/stages/0.json", orjson.dumps(record))
    (lay if laid_in else store.put)("audio/a/b.wav", b"newer, better")

    [found] = examined(store, mend=True)

    assert found.wrong == "differs"
    assert found.found == "audio/a/b.wav: another content than that needed by run run-1"
    assert "if not, delete it, then upload it again" in found.mend
    assert store.read("audio/a/b.wav") == b"newer, better"
    assert list(store.keys("corrupt/")) == []


def test_what_only_runs_write_is_moved_if_it_is_not_what_they_wrote(place: Place) -> None:
    store, _, lay = place
    record = {"tracks": [{"object": reference("runs/run-1/predictions/a.json", b"[]")}]}
    store.put("runs/run-1/stages/3.json", orjson.dumps(record))
    lay("runs/run-1/predictions/a.json", b"{}")

    [found] = examined(store, mend=True)

    assert found.wrong == "damaged"
    assert list(store.keys("corrupt/")) == ["corrupt/runs/run-1/predictions/a.json"]


def test_json_that_a_person_laid_in_may_hold_anything(place: Place) -> None:
    store, _, lay = place
    for key in ("audio/birds/notes.json", "renders/run-1/x.json", "runs/run-1/my.json"):
        lay(key, b"not json, a person's own")

    assert examined(store, mend=True) == []


def test_a_record_of_which_nobody_knows_who_wrote_it_is_told_and_stays(place: Place) -> None:
    store, _, lay = place
    keys = ["aliases/a.json", "collections/c/spec.json", "markers/synth/a.json"]
    keys += ["models/melgan/voice/best.json", "runs/run-1/request.json"]
    for key in keys:
        lay(key, b"{")

    found = examined(store, mend=True)

    assert [finding.found.split(":")[0] for finding in found] == keys
    assert {finding.wrong for finding in found} == {"differs"}
    assert list(store.keys("")) == keys


def test_what_a_later_version_records_beside_is_no_damage(place: Place) -> None:
    store, _, _ = place
    store.put("runs/run-1/request.json", b'{"id": "run-1", "mood": "LATER_ENUM", "later": {}}')

    assert examined(store, mend=True) == []


def test_what_has_no_recorded_hash_is_counted_and_not_called_whole(place: Place) -> None:
    store, _, lay = place
    lay("renders/run-1/piece.wav", b"nobody knows")
    store.put("audio/a/b.wav", b"good")

    with Progress() as progress:
        [objects] = StoreCheck(store, progress, mend=False).objects()

    assert objects.mark == "unknown"
    assert objects.found == (
        "1 fit their hashes, 0 MiB; 1 have none recorded and cannot be checked"
    )


def test_records_that_are_no_json_are_damaged(place: Place) -> None:
    store, _, _ = place
    store.put("runs/run-1/request.json", b"{")
    store.put("collections/birds/spec.json", b"{")

    found = examined(store, mend=True)

    assert [finding.found.split(":")[0] for finding in found] == [
        "collections/birds/spec.json",
        "runs/run-1/request.json",
    ]
    # Without it the collection would look as if it had never been.
    assert store.exists("collections/birds/spec.json")
    assert not store.exists("runs/run-1/request.json")
