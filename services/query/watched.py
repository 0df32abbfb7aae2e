"""A vector index that is watched: which of its operations fail, counted for Prometheus."""

import builtins
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter
from typing_extensions import override

from services.audio.match_table import SourceRef
from services.errors import FAULT_REASONS, fault_of
from services.query.index import (
    Checkpoint,
    Collection,
    CollectionSpec,
    Neighbors,
    PointPage,
    SearchMode,
    VectorIndex,
    never_stopped,
)

OPERATIONS = ("create", "add", "publish", "search", "points", "describe", "spec", "list", "delete")


class WatchedIndex(VectorIndex):
    """The same index. How long it takes is the time of the calls that search it."""

    def __init__(self, index: VectorIndex, registry: CollectorRegistry) -> None:
        self._index = index
        self._errors = Counter(
            "demiurge_index_errors_total",
            "Operations of the vector index that failed; refused requests are no failures.",
            ("operation", "reason"),
            registry=registry,
        )
        # Shown from the beginning: nobody sees a counter rise that begins at one.
        for operation in OPERATIONS:
            for reason in FAULT_REASONS:
                self._errors.labels(operation, reason)

    @override
    def create(self, collection_id: str, spec: CollectionSpec) -> Collection:
        with self._counted("create"):
            return self._index.create(collection_id, spec)

    @override
    def add(
        self,
        collection_id: str,
        source: SourceRef,
        frames: NDArray[np.float32],
        *,
        checkpoint: Checkpoint = never_stopped,
    ) -> int:
        with self._counted("add"):
            return self._index.add(collection_id, source, frames, checkpoint=checkpoint)

    @override
    def publish(
        self,
        collection_id: str,
        alias: str = "",
        *,
        skip_graph: bool = False,
        checkpoint: Checkpoint = never_stopped,
    ) -> Collection:
        with self._counted("publish"):
            return self._index.publish(
                collection_id, alias, skip_graph=skip_graph, checkpoint=checkpoint
            )

    @override
    def search(
        self,
        id_or_alias: str,
        queries: NDArray[np.float32],
        k: int,
        mode: SearchMode,
        *,
        checkpoint: Checkpoint = never_stopped,
    ) -> Neighbors:
        with self._counted("search"):
            return self._index.search(id_or_alias, queries, k, mode, checkpoint=checkpoint)

    @override
    def points(self, collection_id: str) -> Iterator[PointPage]:
        with self._counted("points"):
            yield from self._index.points(collection_id)

    @override
    def describe(self, id_or_alias: str) -> Collection:
        with self._counted("describe"):
            return self._index.describe(id_or_alias)

    @override
    def spec(self, id_or_alias: str) -> CollectionSpec:
        with self._counted("spec"):
            return self._index.spec(id_or_alias)

    @override
    def list(self) -> builtins.list[Collection]:
        with self._counted("list"):
            return self._index.list()

    @override
    def delete(self, collection_id: str) -> None:
        with self._counted("delete"):
            self._index.delete(collection_id)

    @override
    def close(self) -> None:
        self._index.close()

    @contextmanager
    def _counted(self, operation: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if reason := fault_of(error):
                self._errors.labels(operation, reason).inc()
            raise
