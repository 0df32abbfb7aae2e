"""The object store as a plain folder: objects are files under their keys.

Every path is walked component by component without following symlinks, so that neither a key nor
a link planted in the folder leads out of it. Content is written to a temporary file of the same
filesystem, its SHA-256 recorded in an extended attribute of that file, synced, and then given its
name in one step. On a filesystem without extended attributes nothing is recorded.
"""

import errno
import hashlib
import io
import os
import stat
import tempfile
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
    StorageFullError,
    UnavailableError,
)
from services.runtime.object_store.port import (
    BLOCK_BYTES,
    Content,
    ObjectStore,
    StoredObject,
    checked_hash,
    checked_key,
    media_type_of,
    missing,
    opened,
    taken,
)
from services.temporary import FULL

# Unfinished writes live here; the name is reserved and no reader sees it.
INCOMING = ".incoming"
ABANDONED_AFTER_SECONDS = 24 * 3600
HASH_ATTRIBUTE = "user.demiurge.sha256"
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK, opening a named pipe would wait for ever.
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NO_ATTRIBUTES = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM, errno.EACCES}

_Signature = tuple[int, int, int, int, int]


class FolderStore(ObjectStore):
    """Objects as files under `root`, which is made if it is not there.

    Files that a person puts into the folder are objects like any other. A stored file that was
    changed in its place is damaged: stat says what it ought to be, and reading it raises.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.expanduser().absolute()
        self._hashes: dict[str, tuple[_Signature, str]] = {}
        with self._reachable(str(root)):
            (self._root / INCOMING).mkdir(parents=True, exist_ok=True)
        self._remove_abandoned_writes()

    @override
    def put(self, key: str, content: Content) -> StoredObject:
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
    def put_new(self, key: str, content: Content) -> StoredObject:
        with (
            self._written(key, content) as (temporary, written),
            self._parent(key, create=True) as (folder, name),
        ):
            try:
                os.link(temporary, name, dst_dir_fd=folder, follow_symlinks=False)
            except FileExistsError:
                if self._rotten(written):
                    os.replace(temporary, name, dst_dir_fd=folder)
            os.fsync(folder)
            return written

    @override
    def read(self, key: str, *, sha256: str = "") -> bytes:
        with self._reachable(key), self._opened(key) as file:
            recorded = _recorded(file)
            content = file.read()
        if sha256 or recorded:
            actual = hashlib.sha256(content).hexdigest()
            checked_hash(key, actual, recorded=recorded, wanted=sha256)
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
                    self._checked(key, file, sha256)
            yield file

    @override
    def verify(self, key: str) -> StoredObject:
        with self._reachable(key), self._opened(key) as file:
            return _known(key, self._checked(key, file), file)

    @override
    def stat(self, key: str) -> StoredObject:
        with self._reachable(key), self._opened(key) as file:
            return _known(key, _recorded(file) or self._hash(key, file), file)

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
    def _written(self, key: str, content: Content) -> Iterator[tuple[Path, StoredObject]]:
        """A synced temporary file of the content, gone afterwards, and what it will be known as."""
        _own_key(key)
        temporary = self._root / INCOMING / uuid.uuid4().hex
        with opened(content) as source, self._reachable(key):
            try:
                digest = hashlib.sha256()
                with temporary.open("xb") as target:
                    while block := source.read(BLOCK_BYTES):
                        digest.update(block)
                        target.write(block)
                    target.flush()
                    _record(target, digest.hexdigest())
                    os.fsync(target.fileno())
                    written = _known(key, digest.hexdigest(), target)
                yield temporary, written
            finally:
                temporary.unlink(missing_ok=True)

    def _rotten(self, wanted: StoredObject) -> bool:
        """Whether the object was put with this content and has lost it; raises if with another."""
        try:
            with self._opened(wanted.key) as file:
                recorded = _recorded(file)
                if (recorded or self._hash(wanted.key, file)) != wanted.sha256:
                    raise taken(wanted.key)
                self._checked(wanted.key, file)
        except NotFoundError:
            raise _taken_by_folder(wanted.key) from None
        except CorruptObjectError:
            return True
        return False

    def _checked(self, key: str, file: io.BufferedReader, wanted: str = "") -> str:
        """SHA-256 of an open file, which has to be the one recorded and the one wanted."""
        recorded = _recorded(file)
        # What is recorded is held against the bytes, not against what was once read of them.
        actual = _digest(file) if recorded else self._hash(key, file)
        checked_hash(key, actual, recorded=recorded, wanted=wanted)
        return actual

    def _opened(self, key: str) -> io.BufferedReader:
        with self._parent(key) as (folder, name):
            try:
                descriptor = os.open(name, _FILE_FLAGS, dir_fd=folder)
            except FileNotFoundError:
                raise missing(key) from None
            except OSError as error:
                if error.errno == errno.ELOOP:
                    raise _link(key) from None
                raise
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise missing(key)
        return os.fdopen(descriptor, "rb")

    def _hash(self, key: str, file: io.BufferedReader) -> str:
        """SHA-256 of a file that has none recorded, remembered for as long as it stays as it is."""
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
        digest = _digest(file)
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
                        os.fsync(current)
                key = "/".join(names[:depth])
                try:
                    below = os.open(name, _FOLDER_FLAGS, dir_fd=current)
                except FileNotFoundError:
                    raise missing(key) from None
                except OSError as error:
                    # Which of the two a link gives depends on the system.
                    if error.errno not in {errno.ELOOP, errno.ENOTDIR}:
                        raise
                    self._refuse_link(key, current, name)
                    if create:
                        raise ConflictError(
                            f"{key} is an object, so nothing can be stored below it", culprit=key
                        ) from None
                    raise missing(key) from None
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
            if error.errno in FULL:
                raise StorageFullError(
                    f"{key}: the object store at {self._root} is full: make room there, "
                    "or move it to a larger disk and set DEMIURGE_STORE",
                    culprit=str(self._root),
                ) from error
            raise UnavailableError(
                f"{key}: the object store at {self._root} cannot be used: {error.strerror}",
                culprit=key,
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


def _link(key: str) -> ObjectKeyError:
    return ObjectKeyError(f"{key}: symbolic links are not followed; copy the files", culprit=key)


def _taken_by_folder(key: str) -> ConflictError:
    return ConflictError(f"{key}: there are objects below this name", culprit=key)


def _known(key: str, sha256: str, file: BinaryIO) -> StoredObject:
    size = os.fstat(file.fileno()).st_size
    return StoredObject(key, sha256, size, media_type_of(key), recorded=bool(_recorded(file)))


def _digest(file: io.BufferedReader) -> str:
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    file.seek(0)
    return digest


def records_hashes(folder: Path) -> bool:
    """Whether a hash can be recorded with the files of a folder; tried with an unnamed one."""
    with tempfile.TemporaryFile(dir=folder) as file:
        _record(file, "0" * 64)
        return bool(_recorded(file))


def _record(file: BinaryIO, sha256: str) -> None:
    if not hasattr(os, "setxattr"):  # macOS
        return
    try:
        os.setxattr(file.fileno(), HASH_ATTRIBUTE, sha256.encode())
    except OSError as error:
        if error.errno not in _NO_ATTRIBUTES:
            raise


def _recorded(file: BinaryIO) -> str:
    """The SHA-256 recorded with an open file, "" if there is none."""
    if not hasattr(os, "getxattr"):
        return ""
    try:
        return os.getxattr(file.fileno(), HASH_ATTRIBUTE).decode(errors="replace")
    except OSError as error:
        if error.errno not in {errno.ENODATA, *_NO_ATTRIBUTES}:
            raise
        return ""
