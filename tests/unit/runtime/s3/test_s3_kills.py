"""A server that dies or freezes, writers that are killed, files that change under the hand."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from services.errors import (
    ConflictError,
    UnavailableError,
)
from services.runtime.object_store import bucket as bucket_module
from services.runtime.object_store import s3_upload
from services.runtime.object_store.s3 import S3Store
from services.runtime.settings import S3Settings
from tests.servers.seaweed import BUCKET, Seaweed

MEBIBYTE = 1 << 20


def test_a_server_killed_during_an_upload_leaves_nothing_and_takes_it_when_it_is_back(
    seaweed: Seaweed, store: S3Store, prefix: str, tmp_path: Path
) -> None:
    source = tmp_path / "hour.wav"
    source.write_bytes(os.urandom(MEBIBYTE) * 128)
    store.put("audio/a/before.wav", b"before")
    with ThreadPoolExecutor(1) as pool:
        uploading = pool.submit(store.put_new, "audio/a/hour.wav", source)
        while not seaweed.unfinished(prefix):
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
    assert seaweed.unfinished(prefix) == [f"{prefix}/left.wav"]
    monkeypatch.setattr(bucket_module, "ABANDONED_AFTER", timedelta(seconds=-60))
    S3Store(BUCKET, prefix, settings)
    assert seaweed.unfinished(prefix) == []


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
    assert seaweed.unfinished(prefix) == []


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
