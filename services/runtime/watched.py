"""An object store that is watched: how long its operations take, and which of them fail."""

import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import BinaryIO, TypeVar

from typing_extensions import override

from services.errors import FAULT_REASONS, FAULTS, fault_of
from services.runtime.metrics import Metrics
from services.runtime.object_store.port import Content, ObjectStore, StoredObject

OPERATIONS = (
    *("put", "put_new", "read", "open", "verify", "stat"),
    *("keys", "list", "stats", "found", "delete", "exists"),
)
T = TypeVar("T")


class WatchedStore(ObjectStore):
    """The same store. Of what is answered bit by bit the faults are counted, but not the time."""

    def __init__(self, store: ObjectStore, metrics: Metrics) -> None:
        self._store = store
        self._seconds = metrics.object_store_duration
        self._errors = metrics.object_store_errors
        # Shown from the beginning: nobody sees a counter rise that begins at one.
        for operation in OPERATIONS:
            for reason in FAULT_REASONS:
                self._errors.labels(operation, reason)

    @override
    def put(self, key: str, content: Content) -> StoredObject:
        with self._timed("put"):
            return self._store.put(key, content)

    @override
    def put_new(self, key: str, content: Content) -> StoredObject:
        with self._timed("put_new"):
            return self._store.put_new(key, content)

    @override
    def read(self, key: str, *, sha256: str = "") -> bytes:
        with self._timed("read"):
            return self._store.read(key, sha256=sha256)

    @override
    @contextmanager
    def open(self, key: str, *, sha256: str = "") -> Iterator[BinaryIO]:
        with ExitStack() as stack:
            with self._timed("open"):
                file = stack.enter_context(self._store.open(key, sha256=sha256))
            try:
                yield file
            except FAULTS as error:
                # Of an object that is read bit by bit; other errors are the reader's.
                self._errors.labels("open", error.reason).inc()
                raise

    @override
    def verify(self, key: str) -> StoredObject:
        with self._timed("verify"):
            return self._store.verify(key)

    @override
    def stat(self, key: str) -> StoredObject:
        with self._timed("stat"):
            return self._store.stat(key)

    @override
    def keys(self, prefix: str) -> Iterator[str]:
        return self._each("keys", self._store.keys(prefix))

    @override
    def list(self, prefix: str) -> Iterator[StoredObject]:
        return self._each("list", self._store.list(prefix))

    @override
    def stats(self, keys: Iterable[str]) -> Iterator[StoredObject | None]:
        return self._each("stats", self._store.stats(keys))

    @override
    def found(self, key: str) -> StoredObject | None:
        with self._timed("found"):
            return self._store.found(key)

    @override
    def delete(self, key: str) -> None:
        with self._timed("delete"):
            self._store.delete(key)

    @override
    def exists(self, key: str) -> bool:
        with self._timed("exists"):
            return self._store.exists(key)

    @contextmanager
    def _timed(self, operation: str) -> Iterator[None]:
        begin = time.monotonic()
        try:
            with self._counted(operation):
                yield
        finally:
            self._seconds.labels(operation).observe(time.monotonic() - begin)

    @contextmanager
    def _counted(self, operation: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if reason := fault_of(error):
                self._errors.labels(operation, reason).inc()
            raise

    def _each(self, operation: str, results: Iterator[T]) -> Iterator[T]:
        with self._counted(operation):
            yield from results
