"""The vector indexes that the suites run against: every engine does, answers and refuses the same.

A Qdrant server is Qdrant's own local mode behind gRPC, and, where DEMIURGE_TEST_QDRANT_URL names
one (with DEMIURGE_TEST_QDRANT_GRPC_PORT and DEMIURGE_TEST_QDRANT_API_KEY_FILE), a real one besides.
"""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from services.query.connection import Connection, connect
from services.query.edge import EdgeIndex
from services.query.index import VectorIndex
from services.query.server import ServerIndex
from tests.servers.qdrant import Qdrant

REAL = os.environ.get("DEMIURGE_TEST_QDRANT_URL", "")
# Where there is one, a file system in memory: hundreds of collections wait for no disk.
MEMORY = Path("/dev/shm")  # noqa: S108 - directories of our own are made in it

OpenIndex = Callable[[], AbstractContextManager[Callable[[], VectorIndex]]]


@contextmanager
def edge() -> Iterator[Callable[[], VectorIndex]]:
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        yield lambda: EdgeIndex(Path(folder) / "index")


@contextmanager
def local() -> Iterator[Callable[[], VectorIndex]]:
    with Qdrant() as server:
        yield lambda: ServerIndex(Connection(connect(server.url, server.grpc_port), server.url))


@contextmanager
def real() -> Iterator[Callable[[], VectorIndex]]:
    port = int(os.environ.get("DEMIURGE_TEST_QDRANT_GRPC_PORT", "6334"))
    file = os.environ.get("DEMIURGE_TEST_QDRANT_API_KEY_FILE")
    key = Path(file).read_text().strip() if file else ""

    def opened() -> VectorIndex:
        # A namespace of its own: whatever else the server holds is left alone.
        return ServerIndex(Connection(connect(REAL, port, api_key=key), REAL), "demiurge-tests")

    index = opened()
    for collection in index.list():
        index.delete(collection.id)
    index.close()
    yield opened


INDEXES: Mapping[str, Callable[[], AbstractContextManager[Callable[[], VectorIndex]]]] = {
    "edge": edge,
    "server": local,
} | ({"real server": real} if REAL else {})


@pytest.fixture(scope="session", params=INDEXES)
def new_index(request: pytest.FixtureRequest) -> OpenIndex:
    """Context of an empty index; what it yields opens the index anew, as a restart would."""

    @contextmanager
    def fresh() -> Iterator[Callable[[], VectorIndex]]:
        opened: list[VectorIndex] = []

        with INDEXES[request.param]() as new:

            def reopen() -> VectorIndex:
                while opened:
                    opened.pop().close()
                opened.append(new())
                return opened[0]

            try:
                yield reopen
            finally:
                for index in opened:
                    index.close()

    return fresh


@pytest.fixture
def reopen_index(new_index: OpenIndex) -> Iterator[Callable[[], VectorIndex]]:
    """Closes the index that is open, if one is, and opens it anew."""
    with new_index() as reopen:
        yield reopen


@pytest.fixture
def index(reopen_index: Callable[[], VectorIndex]) -> VectorIndex:
    """An empty index."""
    return reopen_index()
