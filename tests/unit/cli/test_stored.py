"""What the doctor finds in a store, be it a folder or S3."""

import hashlib
import io
from collections.abc import Callable
from pathlib import Path

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

Overwrite = Callable[[str, bytes], None]


def folder(request: pytest.FixtureRequest) -> tuple[ObjectStore, Overwrite]:
    root: Path = request.getfixturevalue("tmp_path")

    def overwrite(key: str, content: bytes) -> None:
        # Into the same file: what is recorded with it stays as it is.
        (root / key).write_bytes(content)

    return FolderStore(root), overwrite


def bucket(request: pytest.FixtureRequest) -> tuple[ObjectStore, Overwrite]:
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

    return S3Store(name, prefix, settings), overwrite


@pytest.fixture(params=[folder, bucket])
def place(request: pytest.FixtureRequest) -> tuple[ObjectStore, Overwrite]:
    """A store, and a way to change an object's bytes and nothing that is recorded of it."""
    return request.param(request)


def examined(store: ObjectStore, *, mend: bool = False) -> list[Finding]:
    """What is wrong."""
    with Progress() as progress:
        check = StoreCheck(store, progress, mend=mend)
        findings = [*check.objects(), *check.references(), *check.runs()]
    return [finding for finding in findings if finding.mend]


def reference(key: str, content: bytes) -> dict[str, str]:
    return {"key": key, "sha256": hashlib.sha256(content).hexdigest()}


def test_damaged_objects_are_moved_aside_as_often_as_it_takes(
    place: tuple[ObjectStore, Overwrite],
) -> None:
    store, overwrite = place
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


def test_references_are_followed_and_name_who_needs_them(
    place: tuple[ObjectStore, Overwrite],
) -> None:
    store, _ = place
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

    store.put("audio/a/b.wav", b"another")
    config = {"weights_sha256": hashlib.sha256(weights).hexdigest()}
    store.put(f"{model}/7/config.json", orjson.dumps(config))
    store.put(f"{model}/7/model.safetensors", weights)
    [replaced] = examined(store, mend=True)
    assert replaced.found.startswith(
        "audio/a/b.wav: another content than that needed by run run-1, run run-2; now corrupt/"
    )

    store.put("audio/a/b.wav", sound)
    assert examined(store) == []


def test_what_one_run_replaced_and_needs_is_left_to_it(
    place: tuple[ObjectStore, Overwrite],
) -> None:
    store, _ = place
    for run, sound in (("run-1", b"former"), ("run-2", b"present")):
        record = {"audio": reference("audio/a/b.wav", sound)}
        store.put(f"runs/{run}/stages/0.json", orjson.dumps(record))
    store.put("audio/a/b.wav", b"present")

    [found] = examined(store, mend=True)

    assert found.found == "audio/a/b.wav: another content than that needed by run run-1"
    assert store.read("audio/a/b.wav") == b"present"


def test_records_that_are_no_json_are_damaged(place: tuple[ObjectStore, Overwrite]) -> None:
    store, _ = place
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
