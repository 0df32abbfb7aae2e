"""One suite for every object store: what one does, all do."""

import hashlib
import io
import os
import threading
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from minio import Minio

from services.errors import (
    ConflictError,
    CorruptObjectError,
    InvalidInputError,
    NotFoundError,
    ObjectKeyError,
    UnavailableError,
)
from services.runtime.object_store import s3
from services.runtime.object_store.folder import FolderStore
from services.runtime.object_store.port import ObjectStore
from services.runtime.object_store.s3 import S3Store
from services.runtime.object_store.s3_upload import HASH_HEADER
from services.runtime.settings import S3Settings
from tests.servers.seaweed import BUCKET, Seaweed

# The third is whatever server the environment names.
STORES = ["folder", "seaweed", *(["named"] if "DEMIURGE_TEST_S3_ENDPOINT" in os.environ else [])]
WRITERS = 32
MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class Place:
    """Where a store is, and how its objects are got at without it."""

    reopen: Callable[[], ObjectStore]
    """Opens the same store anew, as another process would."""
    overwrite: Callable[[str, bytes], None]
    """Other bytes under a key, with all that was recorded of the former ones."""
    lay: Callable[[str, bytes], None]
    """An object that nothing is recorded of."""


def folder_place(folder: Path) -> Place:
    root = folder / "store"

    def lay(key: str, content: bytes) -> None:
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).unlink(missing_ok=True)
        (root / key).write_bytes(content)

    def overwrite(key: str, content: bytes) -> None:
        (root / key).write_bytes(content)

    return Place(lambda: FolderStore(root), overwrite, lay)


def s3_place(location: str, settings: S3Settings, client: Minio) -> Place:
    bucket, _, prefix = location.removeprefix("s3://").partition("/")

    def lay(key: str, content: bytes) -> None:
        client.put_object(bucket, f"{prefix}/{key}", io.BytesIO(content), len(content))

    def overwrite(key: str, content: bytes) -> None:
        known = client.stat_object(bucket, f"{prefix}/{key}").metadata
        name = HASH_HEADER.removeprefix("x-amz-meta-")
        recorded = {name: known[HASH_HEADER]}
        client.put_object(
            bucket, f"{prefix}/{key}", io.BytesIO(content), len(content), metadata=recorded
        )

    return Place(lambda: S3Store(bucket, prefix, settings), overwrite, lay)


def named_client(settings: S3Settings) -> Minio:
    scheme, _, host = settings.endpoint.partition("://")
    return Minio(
        host,
        access_key=settings.access_key_file.read_text().strip(),
        secret_key=settings.secret_key_file.read_text().strip(),
        secure=scheme == "https",
        region=settings.region,
    )


@pytest.fixture(params=STORES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "folder":
        return folder_place(tmp_path)
    server: Seaweed | None = None
    if request.param == "seaweed":
        server = request.getfixturevalue("seaweed")
        environment = server.environment
        location = server.location()
    else:
        environment = {
            name.replace("_TEST", ""): value
            for name, value in os.environ.items()
            if name.startswith("DEMIURGE_TEST_S3_")
        }
        location = f"s3://{BUCKET}/{os.urandom(8).hex()}"
    # Among 32 writers of one name, SeaweedFS lets the last wait for seconds.
    settings = S3Settings(
        timeout_seconds=60,
        **{name.removeprefix("DEMIURGE_S3_").lower(): value for name, value in environment.items()},
    )
    return s3_place(location, settings, named_client(settings))


@pytest.fixture
def reopen(place: Place) -> Callable[[], ObjectStore]:
    return place.reopen


@pytest.fixture
def store(place: Place) -> ObjectStore:
    return place.reopen()


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


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
    assert store.put("audio/a/x.flac", source) == store.put("audio/a/x.flac", b"sound")


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


def test_deleting_is_free_to_repeat(store: ObjectStore) -> None:
    store.put("a/b", b"1")
    store.delete("a/b")
    store.delete("a/b")
    assert not store.exists("a/b")
    assert list(store.list("")) == []


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
                done.wait(0.02)

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
