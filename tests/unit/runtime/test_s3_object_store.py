"""What only S3 can suffer: a server that dies, freezes, refuses, or answers nonsense."""

import dataclasses
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import minio.time
import pytest

from services.errors import (
    ConfigurationError,
    ConflictError,
    CorruptObjectError,
    ObjectKeyError,
    StorageFullError,
    UnauthenticatedError,
    UnavailableError,
)
from services.runtime.object_store import bucket as bucket_module
from services.runtime.object_store import s3_upload
from services.runtime.object_store.opening import open_store
from services.runtime.object_store.s3 import S3Store
from services.runtime.settings import RuntimeSettings, S3Settings, load
from tests.servers.relay import Answer, Request, relay
from tests.servers.seaweed import BUCKET, Seaweed

MEBIBYTE = 1 << 20


@pytest.fixture
def settings(seaweed: Seaweed) -> S3Settings:
    return S3Settings(
        endpoint=seaweed.endpoint,
        access_key_file=seaweed.access_key_file,
        secret_key_file=seaweed.secret_key_file,
    )


@pytest.fixture
def prefix(seaweed: Seaweed) -> str:
    return seaweed.location().rpartition("/")[2]


@pytest.fixture
def store(settings: S3Settings, prefix: str) -> S3Store:
    return S3Store(BUCKET, prefix, settings)


def unfinished(seaweed: Seaweed, prefix: str) -> list[str]:
    return [
        str(upload.object_name)
        for upload in seaweed.client()._list_multipart_uploads(BUCKET, prefix=prefix).uploads
    ]


def test_a_server_killed_during_an_upload_leaves_nothing_and_takes_it_when_it_is_back(
    seaweed: Seaweed, store: S3Store, prefix: str, tmp_path: Path
) -> None:
    source = tmp_path / "hour.wav"
    source.write_bytes(os.urandom(MEBIBYTE) * 128)
    store.put("audio/a/before.wav", b"before")
    with ThreadPoolExecutor(1) as pool:
        uploading = pool.submit(store.put_new, "audio/a/hour.wav", source)
        while not unfinished(seaweed, prefix):
            assert not uploading.done()
            time.sleep(0.01)
        seaweed.stop()
        try:
            with pytest.raises(UnavailableError, match=f"{seaweed.endpoint} does not answer"):
                uploading.result()
        finally:
            seaweed.start()
    assert list(store.keys("")) == ["audio/a/before.wav"]
    assert store.read("audio/a/before.wav") == b"before"
    stored = store.put_new("audio/a/hour.wav", source)
    assert store.verify("audio/a/hour.wav") == stored


def test_a_server_killed_during_a_download_is_away_and_then_goes_on_where_it_was(
    seaweed: Seaweed, store: S3Store
) -> None:
    content = os.urandom(20 * MEBIBYTE)
    stored = store.put("hour.wav", content)
    with store.open("hour.wav") as file:
        assert file.read(5 * MEBIBYTE) == content[: 5 * MEBIBYTE]
        at = file.tell()
        seaweed.stop()
        try:
            with pytest.raises(UnavailableError, match="hour"):
                file.read(10 * MEBIBYTE)
            for call in (store.exists, store.delete):
                with pytest.raises(UnavailableError, match="DEMIURGE_S3_ENDPOINT"):
                    call("hour.wav")
            with pytest.raises(UnavailableError):
                list(store.list(""))
        finally:
            seaweed.start()
        file.seek(at)
        assert file.read() == content[at:]
    assert store.read("hour.wav", sha256=stored.sha256) == content


@pytest.mark.parametrize("kills", [1, pytest.param(10, marks=pytest.mark.slow)])
def test_writers_and_readers_through_kills_lose_nothing_that_was_acknowledged(
    seaweed: Seaweed, store: S3Store, kills: int
) -> None:
    acknowledged: dict[str, str] = {}
    done = threading.Event()

    def write(writer: int) -> None:
        number = 0
        while not done.is_set():
            key, number = f"{writer}/{number}", number + 1
            try:
                acknowledged[key] = store.put_new(key, os.urandom(50_000)).sha256
                store.read(key, sha256=acknowledged[key])
            except UnavailableError:
                continue

    with ThreadPoolExecutor(4) as pool:
        writers = [pool.submit(write, writer) for writer in range(4)]
        try:
            for _ in range(kills):
                reached = len(acknowledged) + 20
                while len(acknowledged) < reached:
                    assert not any(writer.done() for writer in writers)
                    time.sleep(0.01)
                seaweed.stop()
                seaweed.start()
        finally:
            done.set()
        for writer in writers:
            writer.result()
    assert len(acknowledged) >= 20 * kills
    for key, sha256 in acknowledged.items():
        assert store.verify(key).sha256 == sha256


def test_a_frozen_server_is_away_after_the_timeout_and_answers_when_it_thaws(
    seaweed: Seaweed, settings: S3Settings, prefix: str
) -> None:
    store = S3Store(BUCKET, prefix, settings.model_copy(update={"timeout_seconds": 0.5}))
    store.put("a", b"1")
    seaweed.pause()
    try:
        with pytest.raises(UnavailableError, match=r"timed out.*read timeout=0\.5"):
            store.read("a")
    finally:
        seaweed.resume()
    assert store.read("a") == b"1"


def test_parts_that_a_killed_writer_left_are_cleared_after_a_day(
    seaweed: Seaweed,
    store: S3Store,
    settings: S3Settings,
    prefix: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seaweed.client()._create_multipart_upload(BUCKET, f"{prefix}/left.wav", {})
    S3Store(BUCKET, prefix, settings)
    assert unfinished(seaweed, prefix) == [f"{prefix}/left.wav"]
    monkeypatch.setattr(bucket_module, "ABANDONED_AFTER", timedelta(seconds=-60))
    S3Store(BUCKET, prefix, settings)
    assert unfinished(seaweed, prefix) == []


def test_a_file_that_changes_while_it_is_stored_is_refused_and_leaves_nothing(
    seaweed: Seaweed, store: S3Store, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_upload, "PART_BYTES", 5 * MEBIBYTE)
    source = tmp_path / "growing.wav"
    source.write_bytes(bytes(40 * MEBIBYTE))
    done = threading.Event()

    def change() -> None:
        with source.open("r+b") as file:
            while not done.is_set():
                file.seek(39 * MEBIBYTE)
                file.write(os.urandom(8))
                file.flush()

    with ThreadPoolExecutor(1) as pool:
        changing = pool.submit(change)
        try:
            with pytest.raises(ConflictError, match=r"growing\.wav was changed while"):
                store.put("audio/a/growing.wav", source)
        finally:
            done.set()
        changing.result()
    assert list(store.keys("")) == []
    assert unfinished(seaweed, prefix) == []


def test_an_upload_in_parts_takes_no_name_that_was_taken_meanwhile(
    settings: S3Settings, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_upload, "PART_BYTES", 5 * MEBIBYTE)
    contents = [bytes([writer]) * 11 * MEBIBYTE for writer in range(4)]
    start = threading.Barrier(4)

    def write(content: bytes) -> str:
        store = S3Store(BUCKET, prefix, settings)
        start.wait()
        try:
            return store.put_new("x", content).sha256
        except ConflictError:
            return ""

    with ThreadPoolExecutor(4) as pool:
        won = [sha256 for sha256 in pool.map(write, contents) if sha256]
    assert len(won) == 1
    assert S3Store(BUCKET, prefix, settings).verify("x").sha256 == won[0]


def test_a_bucket_is_made_and_one_that_has_gone_is_unavailable_not_empty(
    seaweed: Seaweed, settings: S3Settings
) -> None:
    store = S3Store("demiurge-other", "", settings)
    store.put("a", b"1")
    assert list(store.keys("")) == ["a"]
    store.delete("a")
    seaweed.client().remove_bucket("demiurge-other")
    calls: list[Callable[[], object]] = [
        lambda: store.read("a"),
        lambda: store.stat("a"),
        lambda: store.exists("a"),
        lambda: store.put("a", b"1"),
        lambda: store.put_new("a", b"1"),
        lambda: list(store.keys("")),
    ]
    for call in calls:
        with pytest.raises(UnavailableError, match="the bucket demiurge-other has gone"):
            call()


def test_keys_that_are_refused_are_named(
    seaweed: Seaweed, settings: S3Settings, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("wrong")
    for field in ("access_key_file", "secret_key_file"):
        with pytest.raises(UnauthenticatedError, match="DEMIURGE_S3_SECRET_KEY_FILE"):
            S3Store(BUCKET, "", settings.model_copy(update={field: wrong}))


def test_keys_that_cannot_be_read_are_named_by_variable(
    settings: S3Settings, tmp_path: Path
) -> None:
    (tmp_path / "empty").write_text("\n")
    for path, why in ((tmp_path / "none", "cannot be read"), (tmp_path / "empty", "is empty")):
        with pytest.raises(ConfigurationError, match=f"DEMIURGE_S3_ACCESS_KEY_FILE: .*{why}"):
            S3Store(BUCKET, "", settings.model_copy(update={"access_key_file": path}))


def test_a_clock_that_is_wrong_is_said_to_be(
    settings: S3Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = minio.time.utcnow()
    monkeypatch.setattr(minio.time, "utcnow", lambda: now - timedelta(hours=3))
    with pytest.raises(UnauthenticatedError, match="set both clocks"):
        S3Store(BUCKET, "", settings)


@pytest.mark.parametrize(
    ("location", "variable"),
    [
        ("s3://", "DEMIURGE_STORE"),
        ("s3://UPPER_case!", "DEMIURGE_STORE"),
        ("s3://bucket/../other", "DEMIURGE_STORE"),
        ("s3://bucket//x", "DEMIURGE_STORE"),
    ],
)
def test_locations_that_cannot_be_are_refused_by_variable(
    seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch, location: str, variable: str
) -> None:
    for name, value in seaweed.environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=variable):
        open_store(RuntimeSettings(store=location))


def test_settings_come_from_the_environment_and_fail_by_name(
    seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEMIURGE_STORE", seaweed.location() + "/")
    with pytest.raises(ConfigurationError, match="DEMIURGE_S3_ENDPOINT: Field required"):
        open_store(load(RuntimeSettings))
    for name, value in seaweed.environment.items():
        monkeypatch.setenv(name, value)
    open_store(load(RuntimeSettings)).put("a", b"1")
    assert list(open_store(load(RuntimeSettings)).keys("")) == ["a"]
    monkeypatch.setenv("DEMIURGE_S3_REGOIN", "x")
    with pytest.raises(ConfigurationError, match="did you mean DEMIURGE_S3_REGION"):
        open_store(load(RuntimeSettings))
    monkeypatch.delenv("DEMIURGE_S3_REGOIN")
    for endpoint in ("127.0.0.1:9000", "ftp://host", "http://host/path"):
        monkeypatch.setenv("DEMIURGE_S3_ENDPOINT", endpoint)
        with pytest.raises(ConfigurationError, match="DEMIURGE_S3_ENDPOINT"):
            open_store(load(RuntimeSettings))


def test_a_name_too_long_for_the_server_is_the_keys_fault(store: S3Store) -> None:
    with pytest.raises(ObjectKeyError, match="no key for this server"):
        store.put("a/" + "x" * 300, b"1")


def test_a_held_object_that_finds_no_room_says_where(
    seaweed: Seaweed, store: S3Store, prefix: str
) -> None:
    stored = store.put("large.wav", bytes(20 * MEBIBYTE))
    # A limit on file size fails in the middle of a write, as a full disk does.
    program = """
import resource, sys
from services.errors import StorageFullError
from services.runtime.object_store.opening import open_store
from services.runtime.settings import RuntimeSettings, load

store = open_store(load(RuntimeSettings))
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    with store.open("large.wav", sha256=sys.argv[1]):
        pass
except StorageFullError as error:
    print(error)
"""
    said = subprocess.run(
        [sys.executable, "-c", program, stored.sha256],
        env=os.environ | seaweed.environment | {"DEMIURGE_STORE": f"s3://{BUCKET}/{prefix}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "set TMPDIR to a folder on a larger disk" in said.stdout


def test_a_quota_or_disk_that_is_full_is_said_to_be_and_nothing_is_there(
    seaweed: Seaweed, settings: S3Settings, prefix: str, store: S3Store
) -> None:
    for failure in (Answer.failure(507, "InsufficientStorage"), Answer(507)):
        full = lambda request, failure=failure: failure if request.method == "PUT" else None  # noqa: E731
        with relay(seaweed.endpoint, full) as endpoint:
            behind = S3Store(BUCKET, prefix, settings.model_copy(update={"endpoint": endpoint}))
            for put in (behind.put, behind.put_new):
                with pytest.raises(StorageFullError, match=f"{endpoint} is full: make room"):
                    put("a", b"1")
    assert list(store.keys("")) == []


@pytest.mark.parametrize("lost", [3, 4])
def test_a_server_that_asks_for_patience_gets_seconds_of_it(
    seaweed: Seaweed, settings: S3Settings, prefix: str, store: S3Store, lost: int
) -> None:
    store.put("a", b"1")
    asked: list[str] = []

    def busy(request: Request) -> Answer | None:
        if not request.path.startswith(f"/{BUCKET}/{prefix}/a"):
            return None
        asked.append(request.method)
        return Answer.failure(503, "SlowDown") if len(asked) <= lost else None

    with relay(seaweed.endpoint, busy) as endpoint:
        behind = S3Store(BUCKET, prefix, settings.model_copy(update={"endpoint": endpoint}))
        if lost > 3:
            with pytest.raises(UnavailableError, match="answers SlowDown"):
                behind.read("a")
        assert behind.read("a") == b"1"


def test_a_slow_line_carries_a_part_for_longer_than_any_timeout(
    seaweed: Seaweed,
    settings: S3Settings,
    prefix: str,
    store: S3Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bucket_module, "CONNECT_SECONDS", 1.0)
    asked: list[Request] = []
    with relay(seaweed.endpoint, asked.append, seconds_a_block=0.015) as endpoint:
        behind = S3Store(BUCKET, prefix, settings.model_copy(update={"endpoint": endpoint}))
        behind.put("a", bytes(14 * MEBIBYTE))
    assert [request.method for request in asked].count("PUT") == 1
    assert store.verify("a").size_bytes == 14 * MEBIBYTE


def test_an_answer_that_breaks_off_is_asked_for_again(
    seaweed: Seaweed, settings: S3Settings, prefix: str, store: S3Store
) -> None:
    content = os.urandom(2 * MEBIBYTE)
    store.put("a", content)
    broken: list[Request] = []

    def break_off(request: Request, answer: Answer) -> Answer:
        if len(answer.body) < MEBIBYTE or broken:
            return answer
        broken.append(request)
        return dataclasses.replace(answer, break_off_after=MEBIBYTE)

    with relay(seaweed.endpoint, lambda _: None, break_off) as endpoint:
        behind = S3Store(BUCKET, prefix, settings.model_copy(update={"endpoint": endpoint}))
        assert behind.read("a") == content
    assert broken


def test_a_bit_that_flips_on_the_way_is_found(
    seaweed: Seaweed, settings: S3Settings, prefix: str, store: S3Store
) -> None:
    content = os.urandom(MEBIBYTE)
    store.put("a", content)

    def flip(_: Request, answer: Answer) -> Answer:
        if len(answer.body) < MEBIBYTE:
            return answer
        return dataclasses.replace(answer, body=answer.body[:-1] + bytes([answer.body[-1] ^ 1]))

    with relay(seaweed.endpoint, lambda _: None, flip) as endpoint:
        behind = S3Store(BUCKET, prefix, settings.model_copy(update={"endpoint": endpoint}))
        with pytest.raises(CorruptObjectError, match="a: the stored bytes do not fit"):
            behind.read("a")
    assert store.read("a") == content


def test_a_server_without_conditional_writes_is_written_to_without(
    seaweed: Seaweed, settings: S3Settings, prefix: str
) -> None:
    refused: list[str] = []

    def knows_none(request: Request) -> Answer | None:
        if "If-None-Match" not in request.headers:
            return None
        refused.append(request.path)
        return Answer.failure(501, "NotImplemented")

    with relay(seaweed.endpoint, knows_none) as endpoint:
        behind = S3Store(BUCKET, prefix, settings.model_copy(update={"endpoint": endpoint}))
        stored = behind.put_new("a", b"1")
        assert behind.put_new("a", b"1") == stored
        with pytest.raises(ConflictError):
            behind.put_new("a", b"2")
        behind.put_new("b", b"2")
    assert len(refused) == 1


def test_an_upload_whose_end_fails_behind_a_success_leaves_nothing(
    seaweed: Seaweed,
    settings: S3Settings,
    prefix: str,
    store: S3Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(s3_upload, "PART_BYTES", 5 * MEBIBYTE)

    def fail_at_the_end(request: Request) -> Answer | None:
        ends = request.method == "POST" and "uploadId" in request.path
        return (
            dataclasses.replace(Answer.failure(500, "InternalError"), status=200) if ends else None
        )

    with relay(seaweed.endpoint, fail_at_the_end) as endpoint:
        behind = S3Store(BUCKET, prefix, settings.model_copy(update={"endpoint": endpoint}))
        with pytest.raises(UnavailableError, match="InternalError"):
            behind.put("a", bytes(6 * MEBIBYTE))
    assert list(store.keys("")) == []
    assert unfinished(seaweed, prefix) == []


def test_something_that_is_not_s3_is_said_not_to_be(seaweed: Seaweed, settings: S3Settings) -> None:
    page = Answer(200, b"<html><body>Welcome<br></body>", {"Content-Type": "text/html"})
    with relay(seaweed.endpoint, lambda _: page) as endpoint:
        elsewhere = settings.model_copy(update={"endpoint": endpoint})
        with pytest.raises(UnavailableError, match=r"as S3 does.*DEMIURGE_S3_ENDPOINT"):
            S3Store(BUCKET, "", elsewhere)


def test_tls_trusts_the_authority_that_is_set_and_no_other(
    tmp_path: Path, certificates: Path
) -> None:
    with Seaweed(tmp_path / "server", certificates=certificates) as server:
        secure = S3Settings(
            endpoint=server.endpoint,
            access_key_file=server.access_key_file,
            secret_key_file=server.secret_key_file,
            ca=certificates / "ca.pem",
        )
        store = S3Store(BUCKET, "", secure)
        stored = store.put_new("a", bytes(20 * MEBIBYTE))
        assert store.verify("a") == stored
        with pytest.raises(ConfigurationError, match="DEMIURGE_S3_CA"):
            S3Store(BUCKET, "", secure.model_copy(update={"ca": None}))
        with pytest.raises(ConfigurationError, match=r"DEMIURGE_S3_CA: .* cannot be read"):
            S3Store(BUCKET, "", secure.model_copy(update={"ca": tmp_path / "none"}))
