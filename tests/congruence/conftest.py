"""The vector indexes that the suites run against; an adapter joins by one line in INDEXES."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from services.query.edge import EdgeIndex
from services.query.index import VectorIndex

INDEXES: dict[str, Callable[[Path], VectorIndex]] = {
    "edge": lambda folder: EdgeIndex(folder / "index")
}
# Where there is one, a file system in memory: hundreds of collections wait for no disk.
MEMORY = Path("/dev/shm")  # noqa: S108 - directories of our own are made in it

OpenIndex = Callable[[], AbstractContextManager[Callable[[], VectorIndex]]]


@pytest.fixture(scope="session", params=INDEXES)
def new_index(request: pytest.FixtureRequest) -> OpenIndex:
    """Context of an empty index; what it yields opens the index anew, as a restart would."""

    @contextmanager
    def fresh() -> Iterator[Callable[[], VectorIndex]]:
        opened: list[VectorIndex] = []

        def reopen() -> VectorIndex:
            while opened:
                opened.pop().close()
            opened.append(INDEXES[request.param](Path(folder)))
            return opened[0]

        with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
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
