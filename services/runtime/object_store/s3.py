"""The object store in a bucket of any S3 server; its SHA-256 is metadata of every object.

S3 replaces objects whole, so a reader that asks for parts makes sure, by the entity tag, that all
are of one object. Conditional writes keep two writers from taking one name. Where a server has
none, each writer reads again after it has written; of two at the same moment both may be told then
that the name is theirs, and it holds the content of the later.
"""

import hashlib
import io
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import BinaryIO

import structlog
from typing_extensions import Buffer, override

from services.errors import (
    ConfigurationError,
    CorruptObjectError,
    NotFoundError,
    ObjectKeyError,
    UnavailableError,
)
from services.runtime.object_store.bucket import (
    Bucket,
    ConditionFailed,
    ConditionsUnknown,
    EmptyRange,
)
from services.runtime.object_store.port import (
    Content,
    File,
    ObjectStore,
    StoredObject,
    checked_hash,
    checked_key,
    media_type_of,
    missing,
    opened,
    taken,
)
from services.runtime.object_store.s3_upload import HASH_HEADER, upload
from services.runtime.settings import S3Settings
from services.temporary import temporary_file, temporary_room

logger = structlog.get_logger(__name__)

PIECE_BYTES = 8 << 20
PARTIAL = 206
ATTEMPTS = 5
WORKERS = 16
ONLY_NEW = {"If-None-Match": "*"}


@dataclass(frozen=True)
class Facts:
    """What the server says of an object; `sha256` is "" if none was recorded."""

    etag: str
    size_bytes: int
    sha256: str


class _ReplacedError(Exception):
    """The object is not the one that was begun with."""


class S3Store(ObjectStore):
    """Objects of one bucket, below a prefix or ""; the bucket is made if it is not there.

    Raises ConfigurationError, naming the variable, for settings that cannot work,
    UnauthenticatedError for keys that are refused, UnavailableError if the server is away.
    """

    def __init__(self, bucket: str, prefix: str, settings: S3Settings) -> None:
        try:
            self._prefix = f"{checked_key(prefix)}/" if prefix else ""
        except ObjectKeyError as error:
            raise ConfigurationError(
                f"DEMIURGE_STORE: {error.message}", culprit="DEMIURGE_STORE"
            ) from None
        self._bucket = Bucket(bucket, self._prefix, settings)
        self._bucket.abort_abandoned_uploads(self._prefix)
        self._only_new: Mapping[str, str] = ONLY_NEW
        # Of objects that others put, by key: entity tag and SHA-256.
        self._hashes: dict[str, tuple[str, str]] = {}

    @override
    def put(self, key: str, content: Content) -> StoredObject:
        with opened(content) as source:
            return self._written(key, source, {})

    @override
    def put_new(self, key: str, content: Content) -> StoredObject:
        name = self._name(key)
        with opened(content) as source:
            wanted = hashlib.file_digest(source, "sha256").hexdigest()
            for _ in range(ATTEMPTS):
                with suppress(NotFoundError):
                    if self.stat(key).sha256 != wanted:
                        raise taken(key)
                    try:
                        return self.verify(key)
                    except CorruptObjectError:
                        return self._written(key, source, {})
                try:
                    self._written(key, source, self._only_new)
                except ConditionFailed:
                    continue
                except ConditionsUnknown:
                    logger.warning(
                        "this S3 server has no conditional writes: of two who store another "
                        "content under one new name at the same moment, both may be told that "
                        "it is theirs"
                    )
                    self._only_new = {}
                    continue
                there = self.stat(key)
                if there.sha256 != wanted:
                    raise taken(key)
                return there
        raise UnavailableError(f"{name}: others keep writing and deleting this name", culprit=key)

    @override
    def read(self, key: str, *, sha256: str = "") -> bytes:
        with io.BytesIO() as target:
            self._fetch(key, target, sha256)
            return target.getvalue()

    @override
    @contextmanager
    def open(self, key: str, *, sha256: str = "") -> Iterator[BinaryIO]:
        if not sha256:
            pieces = _Pieces(self, key, self._facts(key))
            with io.BufferedReader(pieces, buffer_size=1 << 20) as file:
                yield file
            return
        # Beyond one piece on disk: what was checked is what is handed out, whatever comes after.
        size = self._facts(key).size_bytes
        with io.BytesIO() if size <= PIECE_BYTES else temporary_file(key) as target:
            self._fetch(key, target, sha256)
            with temporary_room(key):
                target.seek(0)
            yield target

    @override
    def verify(self, key: str) -> StoredObject:
        facts, actual = self._fetch(key)
        return _known(key, actual, facts)

    @override
    def stat(self, key: str) -> StoredObject:
        facts = self._facts(key)
        sha256 = facts.sha256
        if not sha256:
            etag, sha256 = self._hashes.get(key, ("", ""))
            if etag != facts.etag:
                facts, sha256 = self._fetch(key)
        return _known(key, sha256, facts)

    @override
    def exists(self, key: str) -> bool:
        try:
            self._facts(key)
        except NotFoundError:
            return False
        return True

    @override
    def keys(self, prefix: str) -> Iterator[str]:
        if prefix:
            checked_key(prefix.removesuffix("/"))
        return self._keys(prefix)

    def _keys(self, prefix: str) -> Iterator[str]:
        # Some servers keep folders, and give "a/x" before "a.wav".
        for name in sorted(self._bucket.keys(self._prefix + prefix)):
            # Names that no key can have, markers of empty folders for one, cannot be asked for.
            with suppress(ObjectKeyError):
                yield checked_key(name.removeprefix(self._prefix))

    @override
    def stats(self, keys: Iterable[str]) -> Iterator[StoredObject | None]:
        waiting: deque[Future[StoredObject | None]] = deque()
        pool = ThreadPoolExecutor(WORKERS, "demiurge-s3-stats")
        try:
            for key in keys:
                waiting.append(pool.submit(self.found, key))
                if len(waiting) > 2 * WORKERS:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            # Whoever has seen enough waits for nothing that has not begun.
            pool.shutdown(cancel_futures=True)

    @override
    def delete(self, key: str) -> None:
        with suppress(NotFoundError):
            self._bucket.request("DELETE", self._name(key))

    def piece(self, key: str, start: int, stop: int) -> tuple[Facts, bytes]:
        """Bytes from `start` up to `stop`, or to the end, and what the object is at this moment."""
        try:
            answer = self._bucket.request(
                "GET", self._name(key), headers={"Range": f"bytes={start}-{stop - 1}"}
            )
        except EmptyRange:
            return self._facts(key), b""
        except NotFoundError:
            raise missing(key) from None
        if answer.status != PARTIAL:
            return _facts(answer.headers, len(answer.data)), answer.data[start:stop]
        total = answer.headers["content-range"].rpartition("/")[2]
        return _facts(answer.headers, int(total)), answer.data

    def _name(self, key: str) -> str:
        return self._prefix + checked_key(key)

    def _facts(self, key: str) -> Facts:
        try:
            answer = self._bucket.request("HEAD", self._name(key))
        except NotFoundError:
            # A head has no body to say which of the two is not there.
            self._bucket.still_there()
            raise missing(key) from None
        return _facts(answer.headers, int(answer.headers.get("content-length", 0)))

    def _written(self, key: str, source: File, condition: Mapping[str, str]) -> StoredObject:
        source.seek(0)
        media_type = media_type_of(key)
        sha256, size = upload(self._bucket, self._name(key), source, media_type, condition)
        return StoredObject(key, sha256, size, media_type)

    def _fetch(
        self, key: str, target: BinaryIO | None = None, wanted: str = ""
    ) -> tuple[Facts, str]:
        """Copies the whole object into `target`; its SHA-256, which fits what was recorded."""
        for _ in range(ATTEMPTS):
            digest = hashlib.sha256()
            try:
                facts, block = self.piece(key, 0, PIECE_BYTES)
                done = 0
                while True:
                    digest.update(block)
                    done += len(block)
                    if target:
                        with temporary_room(key):
                            target.write(block)
                    if done >= facts.size_bytes:
                        break
                    block = self._next_piece(key, facts, done)
            except _ReplacedError:
                if target:
                    target.seek(0)
                    target.truncate()
                continue
            actual = digest.hexdigest()
            if not facts.sha256:
                self._hashes[key] = (facts.etag, actual)
            checked_hash(key, actual, recorded=facts.sha256, wanted=wanted)
            return facts, actual
        raise _keeps_changing(key)

    def _next_piece(self, key: str, facts: Facts, start: int) -> bytes:
        now, block = self.piece(key, start, start + PIECE_BYTES)
        if now.etag != facts.etag or not block:
            raise _ReplacedError
        return block


class _Pieces(io.RawIOBase):
    """An object as a file whose parts are fetched when they are read."""

    def __init__(self, store: S3Store, key: str, facts: Facts) -> None:
        self._store = store
        self._key = key
        self._facts = facts
        self._position = 0

    @override
    def readable(self) -> bool:
        return True

    @override
    def seekable(self) -> bool:
        return True

    @override
    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_CUR: self._position, io.SEEK_END: self._facts.size_bytes}.get(whence, 0)
        if base + offset < 0:
            raise ValueError(f"{base + offset} lies before the file")
        self._position = base + offset
        return self._position

    @override
    def readinto(self, buffer: Buffer) -> int:
        view = memoryview(buffer)
        stop = min(self._position + len(view), self._facts.size_bytes)
        if stop <= self._position:
            return 0
        now, block = self._store.piece(self._key, self._position, stop)
        if now.etag != self._facts.etag:
            raise _keeps_changing(self._key)
        view[: len(block)] = block
        self._position += len(block)
        return len(block)


def _facts(headers: Mapping[str, str], size_bytes: int) -> Facts:
    return Facts(headers.get("etag", ""), size_bytes, headers.get(HASH_HEADER, ""))


def _known(key: str, sha256: str, facts: Facts) -> StoredObject:
    recorded = bool(facts.sha256)
    return StoredObject(key, sha256, facts.size_bytes, media_type_of(key), recorded=recorded)


def _keeps_changing(key: str) -> UnavailableError:
    return UnavailableError(f"{key} was replaced while it was read: read it again", culprit=key)
