import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from services.errors import (
    ConflictError,
    CorruptObjectError,
    ObjectKeyError,
    StorageFullError,
    UnavailableError,
)
from services.runtime.object_store.folder import INCOMING, FolderStore
from services.runtime.object_store.opening import open_store
from services.runtime.settings import RuntimeSettings


def files(root: Path) -> list[str]:
    return sorted(str(found.relative_to(root)) for found in root.rglob("*") if found.is_file())


def test_a_link_to_a_folder_outside_is_refused_by_name(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.wav").write_bytes(b"secret")
    store = FolderStore(tmp_path / "store")
    (tmp_path / "store" / "audio").symlink_to(outside)
    for call in (store.read, store.stat, store.delete, lambda key: store.put(key, b"1")):
        with pytest.raises(ObjectKeyError, match="audio: symbolic links are not followed"):
            call("audio/secret.wav")
    with pytest.raises(ObjectKeyError):
        store.put_new("audio/other.wav", b"1")
    with pytest.raises(ObjectKeyError):
        list(store.list(""))
    assert files(outside) == ["secret.wav"]


def test_a_link_to_a_file_outside_is_refused_by_name(tmp_path: Path) -> None:
    secret = tmp_path / "secret.wav"
    secret.write_bytes(b"secret")
    store = FolderStore(tmp_path / "store")
    store.put("a/x.wav", b"1")
    (tmp_path / "store" / "a" / "link.wav").symlink_to(secret)
    for call in (
        store.read,
        store.stat,
        store.delete,
        lambda key: store.put(key, b"1"),
        lambda key: store.put_new(key, b"1"),
        lambda key: list(store.list(key)),
    ):
        with pytest.raises(ObjectKeyError, match=r"a/link\.wav"):
            call("a/link.wav")
    assert secret.read_bytes() == b"secret"


def test_the_root_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "store").symlink_to(tmp_path / "disk")
    FolderStore(tmp_path / "store").put("a", b"1")
    assert (tmp_path / "disk" / "a").read_bytes() == b"1"


def test_files_that_a_person_changes_are_hashed_anew(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    (tmp_path / "a.wav").write_bytes(b"1")
    before = store.stat("a.wav")
    (tmp_path / "a.wav").write_bytes(b"2")
    os.utime(tmp_path / "a.wav", ns=(1, 1))
    assert store.stat("a.wav").sha256 != before.sha256


def test_pipes_and_names_that_no_key_can_have_are_no_objects(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.wav")).write_bytes(b"1")
    store.put("a", b"1")
    assert [found.key for found in store.list("")] == ["a"]
    assert not store.exists("pipe")


def test_an_object_and_a_folder_cannot_share_a_name(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.put("a/b", b"1")
    for put in (store.put, store.put_new):
        with pytest.raises(ConflictError, match="a: "):
            put("a", b"1")
        with pytest.raises(ConflictError, match="a/b is an object"):
            put("a/b/c", b"1")
    assert files(tmp_path) == ["a/b"]


def test_the_folder_of_unfinished_writes_is_reserved(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    (tmp_path / INCOMING / "half").write_bytes(b"1")
    with pytest.raises(ObjectKeyError, match="reserved"):
        store.read(f"{INCOMING}/half")
    with pytest.raises(ObjectKeyError, match="reserved"):
        list(store.list(f"{INCOMING}/"))
    assert list(store.list("")) == []
    assert list(store.list(".in")) == []


def test_what_a_killed_writer_left_is_cleared_after_a_day(tmp_path: Path) -> None:
    FolderStore(tmp_path)
    for name, age in (("old", 2 * 24 * 3600), ("new", 0)):
        left = tmp_path / INCOMING / name
        left.write_bytes(b"1")
        os.utime(left, (time.time() - age,) * 2)
    FolderStore(tmp_path)
    assert files(tmp_path) == [f"{INCOMING}/new"]


def test_a_name_that_is_not_utf8_is_no_key(tmp_path: Path) -> None:
    with pytest.raises(ObjectKeyError):
        FolderStore(tmp_path).read("\udcff.wav")


def test_a_name_too_long_for_the_filesystem_is_the_keys_fault(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    with pytest.raises(ObjectKeyError, match="too long"):
        store.put("a/" + "x" * 300, b"1")
    assert files(tmp_path) == []


def test_a_full_store_says_so_and_keeps_what_was_there(tmp_path: Path) -> None:
    # A limit on file size fails in the middle of a write, as a full disk does.
    program = f"""
import resource
from pathlib import Path
from services.errors import StorageFullError
from services.runtime.object_store.folder import FolderStore

store = FolderStore(Path({str(tmp_path)!r}))
store.put("a", b"before")
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
for put in (store.put, store.put_new):
    try:
        put("a" if put == store.put else "b", bytes(5 << 20))
    except StorageFullError as error:
        print(error)
"""
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert answer.stdout.count(f"the object store at {tmp_path} is full: make room there") == 2
    assert files(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"before"


@contextmanager
def mounted(folder: Path, kind: str, options: str = "") -> Iterator[Path]:
    """A filesystem of its own in that folder, where we may mount one."""
    folder.mkdir()
    command = ["mount", "-t", kind, *(["-o", options] if options else []), kind, str(folder)]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_without_room_says_so_and_has_room_again_afterwards(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "tmpfs", "size=2m") as root:
        store = FolderStore(root)
        store.put("a", b"before")
        for put in (store.put, store.put_new):
            with pytest.raises(StorageFullError, match=f"{root} is full: make room") as caught:
                put("a" if put == store.put else "b", bytes(3 << 20))
            assert caught.value.culprit == str(root)
        assert files(root) == ["a"]
        assert store.read("a") == b"before"
        store.put("c", bytes(1 << 20))


def test_where_no_hash_can_be_recorded_objects_are_hashed_when_asked_for(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "ramfs") as root:
        store = FolderStore(root)
        stored = store.put_new("a.wav", b"1")
        assert (
            store.put_new("a.wav", b"1") == stored == store.stat("a.wav") == store.verify("a.wav")
        )
        with pytest.raises(ConflictError):
            store.put_new("a.wav", b"2")
        (root / "a.wav").write_bytes(b"22")
        assert store.stat("a.wav").sha256 != stored.sha256
        assert store.read("a.wav") == b"22"
        with pytest.raises(CorruptObjectError, match="was changed since"):
            store.read("a.wav", sha256=stored.sha256)


def test_a_store_that_has_gone_is_unavailable_not_empty(tmp_path: Path) -> None:
    root = tmp_path / "store"
    store = FolderStore(root)
    (root / INCOMING).rmdir()
    root.rmdir()
    for call in (
        store.read,
        store.stat,
        store.delete,
        store.exists,
        lambda key: store.put(key, b"1"),
    ):
        with pytest.raises(UnavailableError):
            call("a")
    with pytest.raises(UnavailableError):
        list(store.list(""))


def test_a_folder_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UnavailableError, match="file/store"):
        FolderStore(tmp_path / "file" / "store")


def test_locations_of_no_known_kind_are_refused_by_variable(tmp_path: Path) -> None:
    assert isinstance(open_store(RuntimeSettings(store=str(tmp_path))), FolderStore)
