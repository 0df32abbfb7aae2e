"""An index that is watched: the same answers, and what failed is counted."""

from collections.abc import Callable

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from services.audio.match_table import SourceRef
from services.errors import NotFoundError, UnavailableError
from services.query.connection import Connection, connect
from services.query.index import CollectionSpec, SearchMode, VectorIndex
from services.query.server import ServerIndex
from services.query.watched import OPERATIONS, WatchedIndex
from tests.servers.qdrant import Qdrant

SPEC = CollectionSpec(("mfcc0",), 44100, 1024)
FRAMES = np.arange(2, dtype=np.float32)[:, np.newaxis]
WREN = SourceRef("wren.wav", "0" * 64, 1, "audio/wav")
CALLS: dict[str, Callable[[VectorIndex], object]] = {
    "create": lambda index: index.create("others", SPEC),
    "add": lambda index: index.add("birds", WREN, FRAMES),
    "publish": lambda index: index.publish("birds", "current"),
    "search": lambda index: index.search("birds", FRAMES, 1, SearchMode.EXACT).distances.tolist(),
    "points": lambda index: [page.start_samples.tolist() for page in index.points("birds")],
    "describe": lambda index: index.describe("birds").id,
    "spec": lambda index: index.spec("birds"),
    "list": lambda index: [collection.id for collection in index.list()],
    "delete": lambda index: index.delete("birds"),
}


def counts(registry: CollectorRegistry) -> dict[tuple[str, str], float]:
    return {
        (sample.labels["operation"], sample.labels["reason"]): sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "demiurge_index_errors_total"
    }


def test_a_qdrant_that_is_away_is_counted_at_each_operation_and_an_unknown_name_is_not() -> None:
    registry = CollectorRegistry()
    with Qdrant() as server:
        plain = ServerIndex(Connection(connect(server.url, server.grpc_port), server.url))
        index = WatchedIndex(plain, registry)
        index.create("birds", SPEC)
        for name in ("add", "publish", "search", "points", "describe", "spec", "list"):
            assert CALLS[name](index) == CALLS[name](plain), name
        with pytest.raises(NotFoundError):
            index.describe("nobody")
        assert {operation for operation, _ in counts(registry)} == set(OPERATIONS)
        assert not any(counts(registry).values())

        server.stop()
        failed = {}
        for name, call in CALLS.items():
            with pytest.raises(UnavailableError):
                call(index)
            failed[name, "UNAVAILABLE"] = 1
        assert {labels: count for labels, count in counts(registry).items() if count} == failed
        index.close()
