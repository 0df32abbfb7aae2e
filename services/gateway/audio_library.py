"""The audio databases of the store: audio/<database>/<file>, immutable."""

import threading
from collections.abc import Iterator
from itertools import islice

from demiurge.audio.v1.audio_pb2 import ObjectRef

from services.errors import BusyError, ConflictError, InvalidInputError, NotFoundError
from services.gateway.uploads import Upload
from services.runtime.messages import ref_to_message
from services.runtime.object_store.port import ObjectStore, checked_key

AUDIO = "audio/"
CHUNK_BYTES = 64 * 1024


class AudioLibrary:
    """Files in and out of audio databases; blocking."""

    def __init__(
        self, store: ObjectStore, *, max_upload_bytes: int, uploads: int = 16, downloads: int = 16
    ) -> None:
        """`uploads` files may be on their way in at once, and `downloads` on their way out."""
        self._store = store
        self._max_upload_bytes = max_upload_bytes
        self._places = threading.BoundedSemaphore(uploads)
        self._downloads = threading.BoundedSemaphore(downloads)

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
        files = [ref_to_message(found) for found in self._store.stats(page[:size]) if found]
        return files, page[size - 1] if len(page) > size else ""

    def upload(self, database: str, file_name: str, sha256: str) -> "Upload":
        """A file on its way in."""
        key = checked_key(f"{self._prefix(database)}{file_name}")
        return Upload(
            self._store, key, sha256, max_bytes=self._max_upload_bytes, places=self._places
        )

    def download(
        self, key: str, offset: int = 0, sha256: str = ""
    ) -> Iterator[tuple[ObjectRef, bytes]]:
        """The object in chunks of at most 64 KiB from byte `offset` on; at least one, maybe empty.

        Raises ConflictError if `sha256` is given and is not the object's, InvalidInputError if it
        is shorter than `offset`, CorruptObjectError, before the first chunk, if it is damaged, and
        BusyError if as many are on their way out as may. What goes on from an offset is not read
        whole for that: whoever has the beginning checks all of it at the end.
        """
        if not self._downloads.acquire(blocking=False):
            raise BusyError(
                f"{key}: as many files as may are being downloaded already "
                "(DEMIURGE_GATEWAY_DOWNLOADS): try again later",
                culprit=key,
            )
        try:
            yield from self._chunks(key, offset, sha256)
        finally:
            self._downloads.release()

    def _chunks(self, key: str, offset: int, sha256: str) -> Iterator[tuple[ObjectRef, bytes]]:
        found = self._store.stat(key)
        if sha256 and sha256 != found.sha256:
            raise ConflictError(
                f"{key} is another content by now than the one with SHA-256 {sha256}: "
                "download it from its beginning",
                culprit=key,
            )
        if offset > found.size_bytes:
            raise InvalidInputError(
                f"{key} has {found.size_bytes} bytes: there is nothing from {offset} on",
                culprit="offset_bytes",
            )
        reference = ref_to_message(found)
        with self._store.open(key, sha256="" if offset else found.sha256) as content:
            content.seek(offset)
            yield reference, content.read(CHUNK_BYTES)
            while chunk := content.read(CHUNK_BYTES):
                yield reference, chunk

    @staticmethod
    def _prefix(database: str) -> str:
        return checked_key(f"{AUDIO}{database}") + "/"
