"""The object store as a plain folder: objects are files under their keys.

Every path is walked component by component without following symlinks, so that neither a key nor
a link planted in the folder leads out of it. Content is written to a temporary file of the same
filesystem, synced, and then given its name in one step.
"""

import errno
import hashlib
import io
import mimetypes
import os
import stat
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from typing_extensions import override

from services.errors import (
    ConflictError,
    CorruptObjectError,
    NotFoundError,
    ObjectKeyError,
    UnavailableError,
)
from services.runtime.object_store.port import ObjectStore, StoredObject, checked_key

# Unfinished writes live here; the name is reserved and no reader sees it.
INCOMING = ".incoming"
ABANDONED_AFTER_SECONDS = 24 * 3600
BLOCK_BYTES = 1 << 20
# Python's own table depends on the machine's and says audio/x-wav.
MEDIA_TYPES = {
    ".flac": "audio/flac",
    ".json": "application/json",
    ".md": "text/markdown",
    ".mp3": "audio/mpeg",
    ".ogg": "audio/ogg",
    ".png": "image/png",
    ".wav": "audio/wav",
}
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK, opening a named pipe would wait for ever.
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

_Signature = tuple[int, int, int, int, int]


def media_type_of(key: str) -> str:
    """The media type that a key's extension stands for."""
    suffix = os.path.splitext(key)[1].lower()  # noqa: PTH122 - a key is no path
    return MEDIA_TYPES.get(suffix) or mimetypes.types_map.get(suffix, "application/octet-stream")


class FolderStore(ObjectStore):
    """Objects as files under `root`, which is made if it is not there.

    Media types follow from keys; a folder has no place to keep others. Files that a person puts
    into the folder are objects like any other.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.expanduser().absolute()
        self._hashes: dict[str, tuple[_Signature, str]] = {}
        with self._reachable(str(root)):
            (self._root / INCOMING).mkdir(parents=True, exist_ok=True)
        self._remove_abandoned_writes()

    @override
    def put(self, key: str, content: bytes | Path, *, media_type: str = "") -> StoredObject:
        with (
            self._written(key, content) as (temporary, written),
            self._parent(key, create=True) as (folder, name),
        ):
            self._refuse_link(key, folder, name)
            try:
                os.replace(temporary, name, dst_dir_fd=folder)
            except IsADirectoryError:
                raise _taken_by_folder(key) from None
            os.fsync(folder)
            return written

    @override
    def put_new(self, key: str, content: bytes | Path, *, media_type: str = "") -> StoredObject:
        with (
            self._written(key, content) as (temporary, written),
            self._parent(key, create=True) as (folder, name),
        ):
            try:
                os.link(temporary, name, dst_dir_fd=folder, follow_symlinks=False)
            except FileExistsError:
                return self._same_or_conflict(written)
            os.fsync(folder)
            return written

    @override
    def read(self, key: str, *, sha256: str = "") -> bytes:
        with self._reachable(key), self._opened(key) as file:
            content = file.read()
        if sha256 and hashlib.sha256(content).hexdigest() != sha256:
            raise _corrupt(key)
        return content

    @override
    @contextmanager
    def open(self, key: str, *, sha256: str = "") -> Iterator[BinaryIO]:
        # Only opening and hashing are the store's: errors of the reader's own pass as they are.
        with self._reachable(key):
            file = self._opened(key)
        with file:
            if sha256:
                with self._reachable(key):
                    if self._hash(key, file) != sha256:
                        raise _corrupt(key)
            yield file

    @override
    def stat(self, key: str) -> StoredObject:
        with self._reachable(key), self._opened(key) as file:
            return StoredObject(
                key, self._hash(key, file), os.fstat(file.fileno()).st_size, media_type_of(key)
            )

    @override
    def exists(self, key: str) -> bool:
        try:
            with self._reachable(key):
                self._opened(key).close()
        except NotFoundError:
            return False
        return True

    @override
    def keys(self, prefix: str) -> Iterator[str]:
        if prefix:
            _own_key(prefix.removesuffix("/"))
        return self._keys_below(prefix.rpartition("/")[0], prefix)

    @override
    def delete(self, key: str) -> None:
        with (
            self._reachable(key),
            suppress(NotFoundError),
            self._parent(key) as (folder, name),
            suppress(FileNotFoundError),
        ):
            found = os.lstat(name, dir_fd=folder)
            if stat.S_ISLNK(found.st_mode):
                raise _link(key)
            if stat.S_ISREG(found.st_mode):
                os.unlink(name, dir_fd=folder)
                self._hashes.pop(key, None)

    def _keys_below(self, folder_key: str, prefix: str) -> Iterator[str]:
        """The keys of regular files below a folder, in order; "" is the root."""
        with self._reachable(folder_key or str(self._root)):
            try:
                with (
                    self._folder(folder_key.split("/") if folder_key else []) as folder,
                    os.scandir(folder) as entries,
                ):
                    found = [
                        (entry.name, entry.is_dir(follow_symlinks=False), entry.is_symlink())
                        for entry in entries
                    ]
            except NotFoundError:
                return
        # "a.wav" comes before "a/…", as it does in S3: by whole keys, not by names.
        for name, is_folder, is_link in sorted(found, key=lambda item: item[0] + "/" * item[1]):
            key = f"{folder_key}/{name}" if folder_key else name
            if key == INCOMING or not (key.startswith(prefix) or prefix.startswith(f"{key}/")):
                continue
            if is_link:
                raise _link(key)
            if is_folder:
                yield from self._keys_below(key, prefix)
                continue
            # Names that no key can have (not UTF-8, control characters) cannot be asked for.
            with suppress(ObjectKeyError):
                yield checked_key(key)

    @contextmanager
    def _written(self, key: str, content: bytes | Path) -> Iterator[tuple[Path, StoredObject]]:
        """A synced temporary file of the content, gone afterwards, and what it will be known as."""
        _own_key(key)
        source: BinaryIO = io.BytesIO(content) if isinstance(content, bytes) else content.open("rb")
        temporary = self._root / INCOMING / uuid.uuid4().hex
        with source, self._reachable(key):
            try:
                digest = hashlib.sha256()
                with temporary.open("xb") as target:
                    while block := source.read(BLOCK_BYTES):
                        digest.update(block)
                        target.write(block)
                    size = target.tell()
                    target.flush()
                    os.fsync(target.fileno())
                yield temporary, StoredObject(key, digest.hexdigest(), size, media_type_of(key))
            finally:
                temporary.unlink(missing_ok=True)

    def _same_or_conflict(self, written: StoredObject) -> StoredObject:
        key = written.key
        try:
            there = self.stat(key)
        except NotFoundError:
            raise _taken_by_folder(key) from None
        if there != written:
            raise ConflictError(
                f"{key}: another content has this name; choose another name", culprit=key
            )
        return there

    def _opened(self, key: str) -> io.BufferedReader:
        with self._parent(key) as (folder, name):
            try:
                descriptor = os.open(name, _FILE_FLAGS, dir_fd=folder)
            except FileNotFoundError:
                raise _missing(key) from None
            except OSError as error:
                if error.errno == errno.ELOOP:
                    raise _link(key) from None
                raise
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise _missing(key)
        return os.fdopen(descriptor, "rb")

    def _hash(self, key: str, file: io.BufferedReader) -> str:
        """SHA-256 of an open file, remembered for as long as the file stays as it is."""
        found = os.fstat(file.fileno())
        signature = (
            found.st_dev,
            found.st_ino,
            found.st_size,
            found.st_mtime_ns,
            found.st_ctime_ns,
        )
        remembered = self._hashes.get(key)
        if remembered and remembered[0] == signature:
            return remembered[1]
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        self._hashes[key] = (signature, digest)
        return digest

    @contextmanager
    def _parent(self, key: str, *, create: bool = False) -> Iterator[tuple[int, str]]:
        """The open folder that holds the object, and the object's name in it."""
        *folders, name = _own_key(key).split("/")
        with self._folder(folders, create=create) as folder:
            yield folder, name

    @contextmanager
    def _folder(self, names: Sequence[str], *, create: bool = False) -> Iterator[int]:
        current = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for depth, name in enumerate(names, start=1):
                if create:
                    with suppress(FileExistsError):
                        os.mkdir(name, dir_fd=current)
                key = "/".join(names[:depth])
                try:
                    below = os.open(name, _FOLDER_FLAGS, dir_fd=current)
                except FileNotFoundError:
                    raise _missing(key) from None
                except OSError as error:
                    # Which of the two a link gives depends on the system.
                    if error.errno not in {errno.ELOOP, errno.ENOTDIR}:
                        raise
                    self._refuse_link(key, current, name)
                    if create:
                        raise ConflictError(
                            f"{key} is an object, so nothing can be stored below it", culprit=key
                        ) from None
                    raise _missing(key) from None
                os.close(current)
                current = below
            yield current
        finally:
            os.close(current)

    def _refuse_link(self, key: str, folder: int, name: str) -> None:
        with suppress(FileNotFoundError):
            if stat.S_ISLNK(os.lstat(name, dir_fd=folder).st_mode):
                raise _link(key)

    @contextmanager
    def _reachable(self, key: str) -> Iterator[None]:
        """Turns errors of the filesystem into the project's own."""
        try:
            yield
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise ObjectKeyError(
                    f"{key!r} has a part too long for a file name", culprit=key
                ) from error
            what = "is full" if error.errno in _FULL else f"cannot be used: {error.strerror}"
            raise UnavailableError(
                f"{key}: the object store at {self._root} {what}", culprit=key
            ) from error

    def _remove_abandoned_writes(self) -> None:
        """Clears what processes that were killed while writing have left."""
        oldest = time.time() - ABANDONED_AFTER_SECONDS
        for left in (self._root / INCOMING).iterdir():
            with suppress(OSError):
                if left.lstat().st_mtime < oldest:
                    left.unlink()


def _own_key(key: str) -> str:
    if checked_key(key).split("/")[0].casefold() == INCOMING:
        raise ObjectKeyError(f"{key!r}: {INCOMING} is reserved", culprit=key)
    return key


def _missing(key: str) -> NotFoundError:
    return NotFoundError(f"{key}: no such object", culprit=key)


def _link(key: str) -> ObjectKeyError:
    return ObjectKeyError(f"{key}: symbolic links are not followed; copy the files", culprit=key)


def _corrupt(key: str) -> CorruptObjectError:
    return CorruptObjectError(f"{key}: the content does not fit its SHA-256", culprit=key)


def _taken_by_folder(key: str) -> ConflictError:
    return ConflictError(f"{key}: there are objects below this name", culprit=key)
