"""The object store: one bucket of immutable, hashed objects, behind one port."""

import io
import mimetypes
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from services.errors import ConflictError, CorruptObjectError, NotFoundError, ObjectKeyError

MAX_KEY_BYTES = 1024
BLOCK_BYTES = 1 << 20
File = io.BytesIO | io.BufferedReader | io.BufferedRandom
Content = bytes | Path | File
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
# Lone surrogates stand for file names that are not UTF-8.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True)
class StoredObject:
    """What the store knows of one object.

    `sha256` (lower-case hexadecimal) was recorded when the object was put, and is what its bytes
    ought to have; without `recorded` it is only what they have now. The media type follows from
    the key.
    """

    key: str
    sha256: str
    size_bytes: int
    media_type: str
    # No part of what an object is: a copy that lost it is the same object.
    recorded: bool = field(default=True, compare=False)


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


def media_type_of(key: str) -> str:
    """The media type that a key's extension stands for."""
    suffix = os.path.splitext(key)[1].lower()  # noqa: PTH122 - a key is no path
    return MEDIA_TYPES.get(suffix) or mimetypes.types_map.get(suffix, "application/octet-stream")


class ObjectStore(ABC):
    """Blocking; safe to call from many threads and processes. A reader sees a whole object or none.

    Every put records the SHA-256 of the content with the object, in the same step. An object that
    a person laid into the store has none recorded and is hashed when it is asked for.

    Every method raises ObjectKeyError for a malformed key, UnavailableError if the store cannot be
    reached, and, if it writes, StorageFullError where no room is left.
    """

    @abstractmethod
    def put(self, key: str, content: Content) -> StoredObject:
        """Stores bytes, or all that is in a file, atomically; replaces what was there.

        The file may be open, which temporary ones without names are: it is read from its beginning.
        """

    @abstractmethod
    def put_new(self, key: str, content: Content) -> StoredObject:
        """Like put, but the name is taken for good.

        The same content again changes nothing, unless the stored bytes have rotted since: then they
        are replaced by the good ones. Raises ConflictError if there is another content.
        """

    @abstractmethod
    def read(self, key: str, *, sha256: str = "") -> bytes:
        """The whole content; NotFoundError if there is none.

        Raises CorruptObjectError, naming the key, if the content does not fit the recorded SHA-256,
        or `sha256` if it is given.
        """

    @abstractmethod
    def open(self, key: str, *, sha256: str = "") -> AbstractContextManager[BinaryIO]:
        """A seekable file of the content; NotFoundError if there is none.

        With `sha256` all of it is checked, as by read, before it is handed out. Without, nothing
        is, and only the parts that are read are fetched.
        """

    @abstractmethod
    def verify(self, key: str) -> StoredObject:
        """Reads all of an object, in blocks, to see that it is what was put; what stat says of it.

        Raises CorruptObjectError if it is not, NotFoundError if there is none.
        """

    @abstractmethod
    def stat(self, key: str) -> StoredObject:
        """What is known of the object, its content unread; NotFoundError if there is none."""

    @abstractmethod
    def keys(self, prefix: str) -> Iterator[str]:
        """The keys that begin with `prefix`, in order; far cheaper than list."""

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """The objects whose keys begin with `prefix`, in the order of their keys."""
        # Deleted meanwhile: then it is not there.
        return (found for found in self.stats(self.keys(prefix)) if found)

    def stats(self, keys: Iterable[str]) -> Iterator[StoredObject | None]:
        """What stat says of each key, in the order of `keys`; None where there is no object.

        A store that is far away is asked for several at a time.
        """
        return map(self.found, keys)

    def found(self, key: str) -> StoredObject | None:
        """What stat says; None if there is no such object."""
        try:
            return self.stat(key)
        except NotFoundError:
            return None

    @abstractmethod
    def delete(self, key: str) -> None:
        """Removes the object, if there is one."""

    @abstractmethod
    def exists(self, key: str) -> bool:
        """Whether there is such an object."""


def checked_hash(key: str, actual: str, *, recorded: str, wanted: str = "") -> None:
    """Raises CorruptObjectError if the content's hash is not the recorded or the wanted one.

    Either may be "": not recorded, or not asked for.
    """
    if recorded and actual != recorded:
        raise CorruptObjectError(
            f"{key}: the stored bytes do not fit the SHA-256 recorded when they were put; "
            "`demiurge doctor --deep` says how they are mended",
            culprit=key,
        )
    if wanted and actual != wanted:
        raise CorruptObjectError(
            f"{key}: the content does not fit the SHA-256 asked for: it was changed since; "
            "put the former content back, or start anew with this one",
            culprit=key,
        )


@contextmanager
def opened(content: Content) -> Iterator[File]:
    """What is to be stored, as a file that stands at its beginning."""
    if isinstance(content, Path):
        with content.open("rb") as file:
            yield file
        return
    file_like = io.BytesIO(content) if isinstance(content, bytes) else content
    file_like.seek(0)
    yield file_like


def missing(key: str) -> NotFoundError:
    """The error of a key that names no object."""
    return NotFoundError(f"{key}: no such object", culprit=key)


def taken(key: str) -> ConflictError:
    """The error of a name that another content has for good."""
    return ConflictError(f"{key}: another content has this name; choose another name", culprit=key)
