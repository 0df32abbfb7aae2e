"""One suite for every object store: what one does, all do."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from services.errors import (
    ConflictError,
    CorruptObjectError,
    InvalidInputError,
    NotFoundError,
    ObjectKeyError,
)
from services.runtime.object_store.port import ObjectStore
from tests.congruence.object_store.conftest import digest


@pytest.mark.parametrize("content", [b"", b"wren", bytes(3 << 20)])
def test_what_was_put_is_read_by_everyone(
    reopen: Callable[[], ObjectStore], content: bytes
) -> None:
    stored = reopen().put("audio/birds/wren.wav", content)
    assert (stored.sha256, stored.size_bytes) == (digest(content), len(content))
    assert stored.media_type == "audio/wav"
    other = reopen()
    assert other.read(stored.key, sha256=stored.sha256) == content
    assert other.stat(stored.key) == stored
    assert other.exists(stored.key)
    with other.open(stored.key, sha256=stored.sha256) as file:
        file.seek(len(content) // 2)
        assert file.read() == content[len(content) // 2 :]


def test_a_file_is_put_like_its_bytes(store: ObjectStore, tmp_path: Path) -> None:
    source = tmp_path / "source.flac"
    source.write_bytes(b"sound")
    stored = store.put("audio/a/x.flac", b"sound")
    assert store.put("audio/a/x.flac", source) == stored
    with tempfile.TemporaryFile() as nameless:
        nameless.write(b"sound")
        assert store.put("audio/a/x.flac", nameless) == stored
        assert store.put_new("audio/a/x.flac", nameless) == stored
        assert store.put_new("audio/b/x.flac", nameless).sha256 == stored.sha256
    assert store.read("audio/b/x.flac") == b"sound"


@pytest.mark.parametrize(
    "key",
    [
        "audio/a b/zaunkönig 鳥.wav",
        "a",
        "audio/...wav",
        "audio/-r %2e",
        "a+b&c=d?e#f;g",
        "%25/*(~)'!",
    ],
)
def test_keys_with_spaces_and_unicode_are_keys(store: ObjectStore, key: str) -> None:
    store.put(key, b"1")
    assert [found.key for found in store.list("")] == [key]
    assert store.read(key) == b"1"


@pytest.mark.parametrize(
    "key",
    ["", "/etc/passwd", "../x", "a/../x", "a//b", "a/", "./a", "a\\b", "a\nb", "\x00", "x" * 1025],
)
def test_keys_that_leave_the_store_are_refused(store: ObjectStore, key: str) -> None:
    with pytest.raises(ObjectKeyError):
        store.put(key, b"1")
    with pytest.raises(ObjectKeyError):
        store.put_new(key, b"1")
    with pytest.raises(ObjectKeyError):
        store.read(key)
    with pytest.raises(ObjectKeyError), store.open(key):
        pass
    with pytest.raises(ObjectKeyError):
        store.stat(key)
    with pytest.raises(ObjectKeyError):
        store.delete(key)
    assert issubclass(ObjectKeyError, InvalidInputError)
    assert not list(store.list(""))


def test_put_replaces_and_put_new_refuses_another_content(store: ObjectStore) -> None:
    store.put("runs/r/run.json", b"1")
    store.put("runs/r/run.json", b"2")
    assert store.read("runs/r/run.json") == b"2"
    first = store.put_new("audio/a/x.wav", b"1")
    assert store.put_new("audio/a/x.wav", b"1") == first
    with pytest.raises(ConflictError, match=r"audio/a/x\.wav"):
        store.put_new("audio/a/x.wav", b"2")
    assert store.read("audio/a/x.wav") == b"1"


def test_what_is_missing_is_named(store: ObjectStore) -> None:
    store.put("audio/a/x.wav", b"1")
    for key in ("audio/a/y.wav", "audio", "audio/a", "audio/a/x.wav/z"):
        for call in (store.read, store.stat):
            with pytest.raises(NotFoundError) as caught:
                call(key)
            assert key.startswith(caught.value.culprit)
        assert not store.exists(key)
        store.delete(key)
    assert store.exists("audio/a/x.wav")


def test_other_bytes_than_promised_are_refused(store: ObjectStore) -> None:
    store.put("a.json", b"1")
    with pytest.raises(CorruptObjectError, match=r"a\.json"):
        store.read("a.json", sha256=digest(b"2"))
    with (
        pytest.raises(CorruptObjectError, match=r"a\.json"),
        store.open("a.json", sha256=digest(b"2")),
    ):
        pass


def test_lists_are_in_the_order_of_keys_and_begin_with_the_prefix(store: ObjectStore) -> None:
    keys = ["a", "b-c/x", "b.wav", "b/x", "b/y/z", "b/y0", "c/z", "c/ä", "c/鳥"]
    for key in reversed(keys):
        store.put(key, key.encode())
    assert [found.key for found in store.list("")] == keys
    assert [found.key for found in store.list("b")] == keys[1:6]
    assert [found.key for found in store.list("b/")] == ["b/x", "b/y/z", "b/y0"]
    assert [found.key for found in store.list("b/y")] == ["b/y/z", "b/y0"]
    assert list(store.list("none/")) == []
    assert list(store.keys("b/")) == ["b/x", "b/y/z", "b/y0"]
    for found in store.list(""):
        assert found == store.stat(found.key)
    with pytest.raises(ObjectKeyError):
        list(store.list("../"))


def test_many_are_asked_for_at_once_and_answered_in_their_order(store: ObjectStore) -> None:
    keys = [f"a/{number:02}" for number in range(50, 0, -1)]
    stored = [store.put(key, key.encode()) for key in keys]
    store.delete(keys[7])
    assert list(store.stats(keys)) == [*stored[:7], None, *stored[8:]]
    assert list(store.stats([])) == []
    assert next(iter(store.stats(iter([*keys, "../x"])))) == stored[0]
    with pytest.raises(ObjectKeyError):
        list(store.stats([keys[0], "../x"]))


def test_deleting_is_free_to_repeat(store: ObjectStore) -> None:
    store.put("a/b", b"1")
    store.delete("a/b")
    store.delete("a/b")
    assert not store.exists("a/b")
    assert list(store.list("")) == []
