"""Mending beside a run that fills the same collection: no sound is lost, by whomever it is done."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from demiurge.query.v1 import query_service_pb2 as pb

from services.audio.match_table import SourceRef
from services.errors import CorruptObjectError
from services.query.connection import Connection, connect
from services.query.edge import EdgeIndex
from services.query.index import VectorIndex
from services.query.records import spec_from_message
from services.query.server import ServerIndex
from services.query.servicer import QueryServicer
from services.query.settings import QuerySettings
from services.runtime.messages import track_to_message
from services.runtime.object_store.folder import FolderStore
from services.runtime.object_store.port import Content, StoredObject
from tests.contract.query_client import reference, spec, track
from tests.servers.qdrant import Qdrant

LOW, HIGH = (track(np.full((4, 3), value, np.float64)) for value in (0, 9))
PATIENCE_SECONDS = 30


class Slow(FolderStore):
    """Keeps records of sounds waiting while `held`."""

    held = False

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.reached, self.go_on = threading.Event(), threading.Event()

    def put(self, key: str, content: Content) -> StoredObject:
        if self.held and "/sources/" in key:
            self.reached.set()
            assert self.go_on.wait(PATIENCE_SECONDS)
        return super().put(key, content)


@pytest.fixture
def store(tmp_path: Path) -> Slow:
    return Slow(tmp_path / "store")


@pytest.fixture(params=["edge", "replicas of a server"])
def open_index(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Callable[[], VectorIndex]]:
    """The index as another service would open it: the same one, where only one process may."""
    with ExitStack() as stack:
        if request.param == "edge":
            index = EdgeIndex(tmp_path / "index")
            stack.callback(index.close)
            yield lambda: index
            return
        server = stack.enter_context(Qdrant())

        def opened() -> VectorIndex:
            replica = ServerIndex(Connection(connect(server.url, server.grpc_port), server.url))
            stack.callback(replica.close)
            return replica

        yield opened


@pytest.fixture
def index(open_index: Callable[[], VectorIndex]) -> VectorIndex:
    return open_index()


@pytest.fixture
def service(store: Slow, index: VectorIndex) -> QueryServicer:
    return QueryServicer(QuerySettings(), store, index)


async def create(service: QueryServicer) -> None:
    request = pb.CreateCollectionRequest(collection_id="birds", spec=spec())
    await service.CreateCollection(request, None)


async def add(service: QueryServicer, key: str) -> None:
    message = track_to_message(HIGH if "high" in key else LOW)
    request = pb.IndexDescriptorsRequest(
        collection_id="birds", source=reference(key), track=message
    )
    assert (await service.IndexDescriptors(request, None)).point_count == 4


async def publish(service: QueryServicer) -> tuple[int, int]:
    request = pb.PublishCollectionRequest(collection_id="birds", skip_graph=True)
    done = (await service.PublishCollection(request, None)).collection
    return done.source_count, done.point_count


async def mend(service: QueryServicer) -> pb.CheckCollectionResponse:
    request = pb.CheckCollectionRequest(collection_id="birds", mend=True)
    return await service.CheckCollection(request, None)


def lose_high(index: VectorIndex) -> None:
    """Leaves the index as one that was taken apart between a sound and its record."""
    index.delete("birds")
    index.create("birds", spec_from_message(spec()))
    index.add("birds", SourceRef("low.wav", "0" * 64, 9, "audio/wav"), LOW.values)


async def test_mending_while_a_sound_is_not_recorded_yet_loses_nothing(
    store: Slow, service: QueryServicer, open_index: Callable[[], VectorIndex]
) -> None:
    await create(service)
    await add(service, "low.wav")
    store.held = True
    run = asyncio.create_task(add(service, "high.wav"))
    assert await asyncio.to_thread(store.reached.wait, PATIENCE_SECONDS)

    other = QueryServicer(QuerySettings(), store, open_index())
    found = await mend(other)
    store.go_on.set()
    await run

    assert (list(found.findings), found.mended) == ([], False)
    assert await publish(service) == (2, 8)
    assert not (await mend(other)).findings


async def test_what_the_index_lost_before_publication_is_put_back_from_the_records(
    service: QueryServicer, index: VectorIndex
) -> None:
    await create(service)
    await add(service, "low.wav")
    await add(service, "high.wav")
    lose_high(index)

    found = await mend(service)
    assert not found.mended
    assert "resume the run" in found.findings[0]
    assert index.describe("birds").source_count == 1

    assert await publish(service) == (2, 8)
    assert not (await mend(service)).findings


async def test_a_published_collection_that_lost_a_sound_is_not_said_to_be_complete(
    service: QueryServicer, index: VectorIndex
) -> None:
    await create(service)
    await add(service, "low.wav")
    await add(service, "high.wav")
    await publish(service)
    lose_high(index)
    index.publish("birds", skip_graph=True)

    with pytest.raises(CorruptObjectError, match=r"birds.* 1 sounds .* 2 are recorded.*--mend"):
        await publish(service)

    assert (await mend(service)).mended
    assert await publish(service) == (2, 8)


async def test_a_sound_that_was_not_recorded_is_to_be_indexed_again_before_publication(
    store: Slow, service: QueryServicer
) -> None:
    await create(service)
    await add(service, "low.wav")
    known = set(store.keys("collections/birds/sources/"))
    await add(service, "high.wav")
    for key in set(store.keys("collections/birds/sources/")) - known:
        store.delete(key)

    with pytest.raises(CorruptObjectError, match="index all its sounds again"):
        await publish(service)
    await add(service, "high.wav")

    assert await publish(service) == (2, 8)


async def test_an_unpublished_collection_that_the_index_lost_is_made_again(
    service: QueryServicer, index: VectorIndex
) -> None:
    await create(service)
    await add(service, "high.wav")
    index.delete("birds")

    assert (await mend(service)).mended

    assert index.describe("birds").point_count == 4
    assert await publish(service) == (1, 4)
