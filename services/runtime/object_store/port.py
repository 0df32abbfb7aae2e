"""The object store: one bucket of immutable, hashed objects, behind one port."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from services.errors import NotFoundError, ObjectKeyError

MAX_KEY_BYTES = 1024
# Lone surrogates stand for file names that are not UTF-8.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True)
class StoredObject:
    """What the store knows of one object; `sha256` is lower-case hexadecimal."""

    key: str
    sha256: str
    size_bytes: int
    media_type: str


def checked_key(key: str) -> str:
    """Returns `key` if it stays inside the bucket.

    Raises ObjectKeyError for absolute keys, empty, "." and ".." segments, backslashes, control
    characters and keys over 1024 bytes.
    """
    if (
        not key
        or _UNPRINTABLE.search(key)
        or len(key.encode()) > MAX_KEY_BYTES
        or "\\" in key
        or any(segment in {"", ".", ".."} for segment in key.split("/"))
    ):
        raise ObjectKeyError(f"{key!r} is not an object key", culprit=key)
    return key


class ObjectStore(ABC):
    """Blocking; safe to call from many threads and processes. A reader sees a whole object or none.

    Every method raises ObjectKeyError for a malformed key and UnavailableError if the store cannot
    be reached.
    """

    @abstractmethod
    def put(self, key: str, content: bytes | Path, *, media_type: str = "") -> StoredObject:
        """Stores bytes, or the content of a file, atomically; replaces what was there.

        An empty `media_type` is guessed from the key.
        """

    @abstractmethod
    def put_new(self, key: str, content: bytes | Path, *, media_type: str = "") -> StoredObject:
        """Like put, but the name is taken for good.

        The same content again changes nothing; raises ConflictError if there is another.
        """

    @abstractmethod
    def read(self, key: str, *, sha256: str = "") -> bytes:
        """The whole content; NotFoundError if there is none.

        Raises CorruptObjectError, naming the key, if `sha256` is given and does not fit.
        """

    @abstractmethod
    def open(self, key: str, *, sha256: str = "") -> AbstractContextManager[BinaryIO]:
        """A seekable file of the content, checked as by read before it is handed out."""

    @abstractmethod
    def stat(self, key: str) -> StoredObject:
        """What is known of the object; NotFoundError if there is none."""

    @abstractmethod
    def keys(self, prefix: str) -> Iterator[str]:
        """The keys that begin with `prefix`, in order; far cheaper than list, which hashes."""

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """The objects whose keys begin with `prefix`, in the order of their keys."""
        for key in self.keys(prefix):
            # Deleted meanwhile: then it is not there.
            with suppress(NotFoundError):
                yield self.stat(key)

    @abstractmethod
    def delete(self, key: str) -> None:
        """Removes the object, if there is one."""

    def exists(self, key: str) -> bool:
        """Whether there is such an object."""
        return key in self.keys(key)
