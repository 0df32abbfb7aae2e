"""A server that is full, busy, slow, or answers what is not true."""

import dataclasses
import os
import threading

import pytest
from structlog.testing import capture_logs

from services.errors import (
    ConflictError,
    CorruptObjectError,
    StorageFullError,
    UnavailableError,
)
from services.gateway.audio_library import AudioLibrary
from services.gateway.standing import objects_stand
from services.runtime.messages import ref_to_message
from services.runtime.object_store import bucket as bucket_module
from services.runtime.object_store import s3_upload
from services.runtime.object_store.s3 import S3Store
from services.runtime.settings import S3Settings
from tests.servers.relay import Answer, Request, relay
from tests.servers.seaweed import BUCKET, Seaweed

MEBIBYTE = 1 << 20


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


def test_a_page_and_the_objects_of_a_stage_are_asked_for_side_by_side(
    seaweed: Seaweed, settings: S3Settings, prefix: str, store: S3Store
) -> None:
    stored = [ref_to_message(store.put(f"audio/a/{number}.wav", b"1")) for number in range(8)]
    # Were they asked for one after the other, the first would wait for the others in vain.
    together = threading.Barrier(8)

    def hold(request: Request) -> None:
        if request.method == "HEAD":
            together.wait(timeout=20)

    with relay(seaweed.endpoint, hold) as endpoint:
        behind = S3Store(BUCKET, prefix, settings.model_copy(update={"endpoint": endpoint}))
        page, _ = AudioLibrary(behind, max_upload_bytes=1).page("a", "", 8)
        assert page == stored
        assert objects_stand(behind, stored)


def test_a_download_that_goes_on_fetches_the_rest_alone(
    seaweed: Seaweed, settings: S3Settings, prefix: str, store: S3Store
) -> None:
    content = os.urandom(20 * MEBIBYTE)
    stored = store.put("audio/a/b.wav", content)
    sent = 0

    def count(request: Request, answer: Answer) -> Answer:
        nonlocal sent
        if request.method == "GET":
            sent += len(answer.body)
        return answer

    with relay(seaweed.endpoint, lambda _: None, count) as endpoint:
        behind = S3Store(BUCKET, prefix, settings.model_copy(update={"endpoint": endpoint}))
        library = AudioLibrary(behind, max_upload_bytes=1)
        chunks = library.download(stored.key, 18 * MEBIBYTE, stored.sha256)
        assert b"".join(data for _, data in chunks) == content[18 * MEBIBYTE :]
    assert 2 * MEBIBYTE <= sent < 3 * MEBIBYTE


def test_a_server_without_conditional_writes_is_written_to_without(
    seaweed: Seaweed, settings: S3Settings, prefix: str
) -> None:
    refused: list[str] = []

    def knows_none(request: Request) -> Answer | None:
        if "If-None-Match" not in request.headers:
            return None
        refused.append(request.path)
        return Answer.failure(501, "NotImplemented")

    with relay(seaweed.endpoint, knows_none) as endpoint, capture_logs() as logs:
        behind = S3Store(BUCKET, prefix, settings.model_copy(update={"endpoint": endpoint}))
        stored = behind.put_new("a", b"1")
        assert behind.put_new("a", b"1") == stored
        with pytest.raises(ConflictError):
            behind.put_new("a", b"2")
        behind.put_new("b", b"2")
    assert len(refused) == 1
    assert [(entry["log_level"], entry["event"][:41]) for entry in logs] == [
        ("warning", "this S3 server has no conditional writes:")
    ]


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
    assert seaweed.unfinished(prefix) == []
