"""No object is ever torn, and none that has rotted is taken for whole, in any store."""

import hashlib
import os
import threading
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from services.errors import (
    ConflictError,
    CorruptObjectError,
    UnavailableError,
)
from services.runtime.object_store import s3
from services.runtime.object_store.port import ObjectStore
from tests.congruence.object_store.conftest import MEBIBYTE, WRITERS, Place, digest


def flipped(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def test_a_flipped_bit_is_found_by_all_who_check_and_by_nobody_else(place: Place) -> None:
    content = os.urandom(100_000)
    stored = place.reopen().put("audio/a/x.wav", content)
    place.overwrite("audio/a/x.wav", flipped(content))
    store = place.reopen()
    assert store.stat("audio/a/x.wav") == stored
    assert list(store.list("")) == [stored]
    for check in (
        store.verify,
        store.read,
        lambda key: store.read(key, sha256=stored.sha256),
        lambda key: store.read(key, sha256=digest(flipped(content))),
        lambda key: store.open(key, sha256=stored.sha256).__enter__(),
    ):
        with pytest.raises(CorruptObjectError, match=r"audio/a/x\.wav.*doctor --deep") as caught:
            check("audio/a/x.wav")
        assert caught.value.culprit == "audio/a/x.wav"
    with store.open("audio/a/x.wav") as file:
        assert file.read() == flipped(content)


def test_put_new_mends_what_has_rotted_and_still_refuses_another_content(place: Place) -> None:
    store = place.reopen()
    stored = store.put_new("x.wav", b"good")
    place.overwrite("x.wav", b"goof")
    for other in (b"goof", b"else"):
        with pytest.raises(ConflictError):
            store.put_new("x.wav", other)
    assert store.put_new("x.wav", b"good") == stored
    assert store.read("x.wav") == b"good"
    assert store.verify("x.wav") == stored


def test_objects_that_others_laid_in_are_hashed_when_asked_for(place: Place) -> None:
    store = place.reopen()
    for content in (b"first", b"second", b"third!"):
        place.lay("audio/a/x.wav", content)
        stored = store.stat("audio/a/x.wav")
        assert (stored.sha256, stored.size_bytes) == (digest(content), len(content))
        assert store.read("audio/a/x.wav", sha256=stored.sha256) == content
        assert store.put_new("audio/a/x.wav", content) == stored
        assert store.verify("audio/a/x.wav") == stored
        with pytest.raises(ConflictError):
            store.put_new("audio/a/x.wav", b"fourth")


def test_the_store_says_whether_a_hash_was_recorded_or_is_only_that_of_what_lies_there(
    place: Place,
) -> None:
    store = place.reopen()
    store.put("put.wav", b"put")
    place.lay("laid.wav", b"laid")

    for look in (store.stat, store.verify):
        assert (look("put.wav").recorded, look("laid.wav").recorded) == (True, False)


def test_large_objects_are_written_read_and_checked_in_little_memory(
    place: Place, tmp_path: Path
) -> None:
    source = tmp_path / "large.wav"
    block = os.urandom(MEBIBYTE)
    with source.open("wb") as file:
        for number in range(65):
            file.write(number.to_bytes(4) + block[4:])
    sha256 = digest(source.read_bytes())
    store = place.reopen()
    tracemalloc.start()
    try:
        stored = store.put("large.wav", source)
        assert stored.sha256 == sha256
        assert stored.size_bytes == 65 * MEBIBYTE
        assert store.verify("large.wav") == stored
        with store.open("large.wav", sha256=sha256) as whole, store.open("large.wav") as ranged:
            for file in (whole, ranged):
                for number in (64, 3, 40):
                    assert file.seek(number * MEBIBYTE) == file.tell()
                    assert file.read(5) == number.to_bytes(4) + block[4:5]
                file.seek(-5, os.SEEK_END)
                assert file.read() == block[-5:]
                file.seek(0)
                assert hashlib.file_digest(file, "sha256").hexdigest() == sha256
        assert tracemalloc.get_traced_memory()[1] < 48 * MEBIBYTE
    finally:
        tracemalloc.stop()
    assert digest(store.read("large.wav", sha256=sha256)) == sha256
    assert store.put_new("large.wav", source) == stored


def test_a_list_of_many_is_whole_and_in_order(store: ObjectStore) -> None:
    # Servers give a thousand at a time.
    keys = [f"audio/a/{number:04}.wav" for number in range(1100)]
    with ThreadPoolExecutor(8) as pool:
        stored = list(pool.map(lambda key: store.put(key, key.encode()), keys))
    assert list(store.list("audio/")) == stored
    assert list(store.keys("audio/a/10")) == keys[1000:1100]


def test_a_list_survives_deletions_beside_it(store: ObjectStore) -> None:
    for number in range(60):
        store.put(f"a/{number:02}", b"1")
    listed = store.list("a/")
    first = next(listed)
    for number in range(1, 60):
        store.delete(f"a/{number:02}")
    keys = [found.key for found in listed]
    assert first.key == "a/00"
    assert "a/59" not in keys
    assert keys == sorted(keys)


def test_of_racing_writers_of_a_new_name_one_wins(reopen: Callable[[], ObjectStore]) -> None:
    won = race(reopen)
    assert len(won) == 1
    assert reopen().read("audio/a/x.wav") == won[0]


def test_without_conditional_writes_the_name_still_ends_with_a_winner(
    reopen: Callable[[], ObjectStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "ONLY_NEW", {})
    won = race(reopen)
    assert reopen().read("audio/a/x.wav") in won
    with pytest.raises(ConflictError):
        reopen().put_new("audio/a/x.wav", b"later")
    assert reopen().read("audio/a/x.wav") in won


def race(reopen: Callable[[], ObjectStore]) -> list[bytes]:
    """The contents whose writers were told that the name is theirs."""
    contents = [bytes([writer]) * 100_000 for writer in range(WRITERS)]
    won: list[bytes] = []
    start = threading.Barrier(WRITERS)

    def write(content: bytes) -> None:
        store = reopen()
        start.wait()
        with suppress(ConflictError):
            store.put_new("audio/a/x.wav", content)
            won.append(content)

    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(write, contents))
    return won


def test_readers_beside_32_writers_see_whole_objects_only(
    reopen: Callable[[], ObjectStore],
) -> None:
    contents = {bytes([writer]) * 200_000 for writer in range(WRITERS)}
    reopen().put("x", min(contents))
    done = threading.Event()
    seen: set[bytes] = set()
    listed: set[str] = set()

    def watch() -> None:
        store = reopen()
        while not done.is_set():
            seen.add(store.read("x"))
            assert digest(store.read("x")) in hashes
            assert store.verify("x").sha256 in hashes
            listed.update(found.key for found in store.list(""))

    hashes = {digest(content) for content in contents}

    def write(content: bytes) -> None:
        store = reopen()
        for _ in range(5):
            assert store.put("x", content).sha256 == digest(content)

    with ThreadPoolExecutor(WRITERS + 4) as pool:
        readers = [pool.submit(watch) for _ in range(4)]
        try:
            list(pool.map(write, contents))
        finally:
            done.set()
        for reader in readers:
            reader.result()
    assert seen
    assert seen <= contents
    assert listed <= {"x"}


def test_an_object_replaced_while_it_is_read_in_pieces_is_never_a_mixture(
    reopen: Callable[[], ObjectStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "PIECE_BYTES", 1 << 16)
    contents = {bytes([writer]) * 200_000 for writer in range(2)}
    writer, reader = reopen(), reopen()
    writer.put("x", min(contents))
    done = threading.Event()

    def write() -> None:
        while not done.is_set():
            for content in contents:
                writer.put("x", content)
                # Reading tries again, but on a busy machine not for ever.
                done.wait(0.1)

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        try:
            for _ in range(100):
                assert reader.read("x") in contents
                # S3 keeps no former object for those who have not read all of it.
                with suppress(UnavailableError), reader.open("x") as file:
                    assert file.read() in contents
        finally:
            done.set()
        writing.result()
