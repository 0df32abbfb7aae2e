"""The audio databases of the store: audio/<database>/<file>, immutable."""

import hashlib
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import TracebackType

from demiurge.audio.v1.audio_pb2 import ObjectRef

from services.errors import InvalidInputError, NotFoundError
from services.runtime.messages import ref_to_message
from services.runtime.object_store.port import ObjectStore, checked_key

AUDIO = "audio/"
CHUNK_BYTES = 64 * 1024


class AudioLibrary:
    """Files in and out of audio databases; blocking."""

    def __init__(self, store: ObjectStore, *, max_upload_bytes: int) -> None:
        self._store = store
        self._max_upload_bytes = max_upload_bytes

    def files(self, database: str) -> list[ObjectRef]:
        """The files of a database by name; NotFoundError, naming it, if there are none.

        Hashes what it has not seen before.
        """
        files = [ref_to_message(found) for found in self._store.list(self._prefix(database))]
        if not files:
            raise NotFoundError(
                f"audio database {database!r} is empty or does not exist: upload files to it first",
                culprit=database,
            )
        return files

    def file(self, database: str, name: str) -> ObjectRef:
        """One file of a database; NotFoundError, naming both, if there is none."""
        try:
            return ref_to_message(self._store.stat(f"{self._prefix(database)}{name}"))
        except NotFoundError as error:
            raise NotFoundError(
                f"audio database {database!r} has no file {name!r}", culprit=name
            ) from error

    def page(self, database: str, after: str, size: int) -> tuple[list[ObjectRef], str]:
        """`size` files after the key `after`, and the key to go on from ("" at the end)."""
        prefix = self._prefix(database)
        rest = (key for key in self._store.keys(prefix) if key > after)
        # Only what is shown is hashed. One more than that tells whether there is more.
        page = list(islice(rest, size + 1))
        files = [ref_to_message(self._store.stat(key)) for key in page[:size]]
        return files, page[size - 1] if len(page) > size else ""

    def upload(self, database: str, file_name: str, sha256: str) -> "Upload":
        """A file on its way in."""
        key = checked_key(f"{self._prefix(database)}{file_name}")
        return Upload(self._store, key, sha256, self._max_upload_bytes)

    def download(self, key: str, offset: int) -> Iterator[tuple[ObjectRef, bytes]]:
        """The object in chunks of at most 64 KiB from byte `offset` on; at least one, maybe empty.

        Raises InvalidInputError if it is shorter than `offset`.
        """
        found = self._store.stat(key)
        if offset > found.size_bytes:
            raise InvalidInputError(
                f"{key} has {found.size_bytes} bytes: there is nothing from {offset} on",
                culprit="offset_bytes",
            )
        reference = ref_to_message(found)
        with self._store.open(key, sha256=found.sha256) as content:
            content.seek(offset)
            yield reference, content.read(CHUNK_BYTES)
            while chunk := content.read(CHUNK_BYTES):
                yield reference, chunk

    @staticmethod
    def _prefix(database: str) -> str:
        return checked_key(f"{AUDIO}{database}") + "/"


class Upload:
    """One file on its way into the store: spooled to disk, checked, then stored whole or not."""

    def __init__(self, store: ObjectStore, key: str, sha256: str, max_bytes: int) -> None:
        self._store = store
        self._key = key
        self._sha256 = sha256
        self._max_bytes = max_bytes
        self._hash = hashlib.sha256()
        self._size = 0

    def __enter__(self) -> "Upload":
        self._spool = tempfile.NamedTemporaryFile(prefix="demiurge-upload-")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._spool.close()

    def write(self, data: bytes) -> None:
        """Takes the next bytes; InvalidInputError, naming the file, if it grows too large."""
        self._size += len(data)
        if self._size > self._max_bytes:
            raise InvalidInputError(
                f"{self._key}: larger than {self._max_bytes} bytes, the most that is taken "
                "(DEMIURGE_GATEWAY_MAX_UPLOAD_BYTES)",
                culprit=self._key,
            )
        self._hash.update(data)
        self._spool.write(data)

    def finish(self) -> ObjectRef:
        """Stores the file.

        Raises InvalidInputError if the bytes do not fit the hash that was announced, and
        ConflictError if another content has this name.
        """
        if self._hash.hexdigest() != self._sha256:
            raise InvalidInputError(
                f"{self._key}: the bytes that arrived have SHA-256 {self._hash.hexdigest()}, "
                f"announced was {self._sha256}: upload it again",
                culprit=self._key,
            )
        self._spool.flush()
        return ref_to_message(self._store.put_new(self._key, Path(self._spool.name)))
