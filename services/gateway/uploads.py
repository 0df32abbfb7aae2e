"""Files on their way in: spooled to disk, checked, then stored whole or not at all.

What is in a file is no matter here: whoever reads it says, by its name, if it is no sound.
"""

import asyncio
import contextlib
import hashlib
import tempfile
import threading
from collections.abc import AsyncIterator
from types import TracebackType
from typing import TypeVar

from demiurge.audio.v1.audio_pb2 import ObjectRef

from services.errors import BusyError, InvalidInputError, TimeExceededError
from services.runtime.messages import ref_to_message
from services.runtime.object_store.port import ObjectStore
from services.temporary import temporary_room

T = TypeVar("T")


class Upload:
    """One file on its way into the store; it takes one of `places` while it is open."""

    def __init__(
        self,
        store: ObjectStore,
        key: str,
        sha256: str,
        *,
        max_bytes: int,
        places: threading.BoundedSemaphore,
    ) -> None:
        self._store = store
        self._key = key
        self._sha256 = sha256
        self._max_bytes = max_bytes
        self._places = places
        self._hash = hashlib.sha256()
        self._size = 0

    def __enter__(self) -> "Upload":
        """Raises BusyError if all places are taken."""
        if not self._places.acquire(blocking=False):
            raise BusyError(
                f"{self._key}: as many files as may are being uploaded already "
                "(DEMIURGE_GATEWAY_UPLOADS): try again later",
                culprit=self._key,
            )
        try:
            with temporary_room(self._key):
                self._spool = tempfile.TemporaryFile()
        except BaseException:
            self._places.release()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            # Closing writes what is still buffered, for which there may be no room; and nobody
            # misses it: what was stored was flushed before.
            with contextlib.suppress(OSError):
                self._spool.close()
        finally:
            self._places.release()

    def write(self, data: bytes) -> None:
        """Takes the next bytes.

        Raises InvalidInputError, naming the file, if it grows too large, and StorageFullError if
        there is no room for it.
        """
        self._size += len(data)
        if self._size > self._max_bytes:
            raise InvalidInputError(
                f"{self._key}: larger than {self._max_bytes} bytes, the most that is taken "
                "(DEMIURGE_GATEWAY_MAX_UPLOAD_BYTES)",
                culprit=self._key,
            )
        self._hash.update(data)
        with temporary_room(self._key):
            self._spool.write(data)

    def finish(self) -> ObjectRef:
        """Stores the file.

        Raises InvalidInputError if the bytes do not fit the hash that was announced,
        ConflictError if another content has this name, and StorageFullError.
        """
        if self._hash.hexdigest() != self._sha256:
            raise InvalidInputError(
                f"{self._key}: the bytes that arrived have SHA-256 {self._hash.hexdigest()}, "
                f"announced was {self._sha256}: upload it again",
                culprit=self._key,
            )
        with temporary_room(self._key):
            self._spool.flush()
        return ref_to_message(self._store.put_new(self._key, self._spool))


async def prompt(messages: AsyncIterator[T], idle_seconds: float) -> AsyncIterator[T]:
    """The messages as they arrive; TimeExceededError if one takes longer than `idle_seconds`."""
    while True:
        try:
            async with asyncio.timeout(idle_seconds):
                message = await anext(messages)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise TimeExceededError(
                f"nothing arrived for {idle_seconds:g} s, so the upload was ended and nothing is "
                "stored (DEMIURGE_GATEWAY_UPLOAD_IDLE_SECONDS): upload it again"
            ) from error
        yield message
