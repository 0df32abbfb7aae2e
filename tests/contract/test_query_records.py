"""What a collection leaves in the object store: checked against it, and rebuilt from it."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from demiurge.audio.v1 import audio_pb2
from demiurge.query.v1 import query_service_pb2 as pb
from demiurge.query.v1 import query_service_pb2_grpc as pb_grpc

from services.audio.track_json import read_tracks
from services.errors import (
    ConflictError,
    CorruptObjectError,
    NotFoundError,
)
from services.query.edge import EdgeIndex
from services.runtime.messages import (
    track_to_message,
)
from services.runtime.object_store.folder import FolderStore
from services.runtime.status import error_from_rpc
from tests.contract.query_client import (
    add,
    create,
    publish,
    refusal,
    served,
    spec,
    track,
)


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


@pytest.fixture
def index(tmp_path: Path) -> Iterator[EdgeIndex]:
    opened = EdgeIndex(tmp_path / "index")
    yield opened
    opened.close()


@pytest.fixture
async def stub(
    tmp_path: Path, store: FolderStore, index: EdgeIndex
) -> AsyncIterator[pb_grpc.QueryServiceStub]:
    async with served(tmp_path / "index", store, index) as served_stub:
        yield served_stub


LOW, HIGH = (
    track(offset + np.random.default_rng(seed).normal(size=(5, 3)), f"{seed}.wav")
    for seed, offset in enumerate((0.0, 2.0))
)


async def filled(stub: pb_grpc.QueryServiceStub, alias: str = "current") -> None:
    await create(stub)
    await add(stub, "audio/low.wav", LOW)
    await add(stub, "audio/high.wav", HIGH)
    await publish(stub, alias=alias)


async def matched(stub: pb_grpc.QueryServiceStub, name: str = "current") -> audio_pb2.MatchTable:
    query = track(np.linspace(-1, 3, 18).reshape(6, 3))
    request = pb.MatchDescriptorsRequest(
        collection_id=name, track=track_to_message(query), neighbors=3
    )
    return (await stub.MatchDescriptors(request)).matches


async def checked(
    stub: pb_grpc.QueryServiceStub, name: str = "birds", *, mend: bool = False
) -> pb.CheckCollectionResponse:
    return await stub.CheckCollection(pb.CheckCollectionRequest(collection_id=name, mend=mend))


async def test_a_collection_that_the_index_lost_is_rebuilt_from_the_store_alone(
    stub: pb_grpc.QueryServiceStub, index: EdgeIndex
) -> None:
    await filled(stub)
    before = await matched(stub)
    assert await checked(stub) == pb.CheckCollectionResponse(expected_points=10)
    index.delete("birds")

    get = stub.GetCollection(pb.GetCollectionRequest(collection_id="current"))
    for call in (get, matched(stub, "birds")):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call
        lost = error_from_rpc(raised.value)
        assert isinstance(lost, NotFoundError)
        assert "`demiurge doctor --deep --mend` rebuilds it" in lost.message
    looked = await checked(stub)
    assert (looked.expected_points, looked.missing_points, looked.mended) == (10, 10, False)
    assert looked.findings[0] == "the index has lost it"
    assert (await checked(stub, mend=True)).mended

    assert await matched(stub) == before
    assert await checked(stub, mend=True) == pb.CheckCollectionResponse(expected_points=10)


async def test_a_lost_collection_can_be_indexed_again_but_not_as_another(
    stub: pb_grpc.QueryServiceStub, index: EdgeIndex
) -> None:
    await filled(stub)
    before = await matched(stub)
    index.delete("birds")

    request = pb.CreateCollectionRequest(collection_id="birds", spec=spec(metric=pb.METRIC_COSINE))
    refused = await refusal(stub.CreateCollection(request))
    assert isinstance(refused, ConflictError)
    await filled(stub)

    assert await matched(stub) == before
    assert await checked(stub) == pb.CheckCollectionResponse(expected_points=10)


async def test_a_track_that_was_sent_along_is_kept_as_a_descriptor_file(
    stub: pb_grpc.QueryServiceStub, store: FolderStore, index: EdgeIndex
) -> None:
    await filled(stub)

    files = [read_tracks(store.read(key), source=key) for key in store.keys("descriptors/")]
    assert sorted(kept.source for [kept] in files) == ["0.wav", "1.wav"]
    for key in list(store.keys("descriptors/")):
        store.delete(key)
    whole = await checked(stub)
    assert (whole.missing_points, len(whole.findings)) == (0, 2)
    index.delete("birds")
    refused = await refusal(
        stub.CheckCollection(pb.CheckCollectionRequest(collection_id="birds", mend=True))
    )

    assert isinstance(refused, NotFoundError)
    assert "audio/low.wav: descriptors/" in refused.message
    assert "extract or index these sounds again" in refused.message


async def test_deletion_removes_the_records_and_completes_one_cut_short(
    stub: pb_grpc.QueryServiceStub, store: FolderStore, index: EdgeIndex
) -> None:
    async def delete() -> None:
        await stub.DeleteCollection(pb.DeleteCollectionRequest(collection_id="birds"))

    def recorded() -> list[str]:
        return [*store.keys("collections/"), *store.keys("aliases/")]

    await filled(stub)
    assert len(recorded()) == 5
    await delete()
    assert recorded() == []

    # Cut short after the index, and after the first of the records.
    for remaining in (0, 1):
        await filled(stub)
        index.delete("birds")
        for key in ("aliases/current.json", "collections/birds/spec.json")[: 2 * remaining]:
            store.delete(key)
        await delete()
        assert recorded() == []
    with pytest.raises(grpc.aio.AioRpcError):
        await delete()


async def test_what_a_deletion_left_is_no_part_of_a_new_collection(
    stub: pb_grpc.QueryServiceStub, store: FolderStore, index: EdgeIndex
) -> None:
    await filled(stub)
    index.delete("birds")
    for key in ("aliases/current.json", "collections/birds/spec.json"):
        store.delete(key)

    await create(stub)
    await add(stub, "audio/low.wav", LOW)

    assert await checked(stub) == pb.CheckCollectionResponse(expected_points=5)


async def test_what_the_index_acknowledged_before_a_crash_is_recorded_when_mended(
    stub: pb_grpc.QueryServiceStub, store: FolderStore, index: EdgeIndex
) -> None:
    await filled(stub)
    store.delete("collections/birds/published.json")
    store.delete("aliases/current.json")
    assert (await checked(stub)).findings == [
        "is published in the index, but not in the object store"
    ]

    await checked(stub, mend=True)

    assert not (await checked(stub)).findings
    before = await matched(stub)
    index.delete("birds")
    assert (await checked(stub, mend=True)).mended
    assert await matched(stub) == before


async def test_an_alias_points_where_it_was_last_moved_to(
    stub: pb_grpc.QueryServiceStub, index: EdgeIndex
) -> None:
    await filled(stub)
    await create(stub, "bats")
    await add(stub, "audio/high.wav", HIGH, "bats")
    await publish(stub, "bats", alias="current")
    before = await matched(stub)
    for name in ("birds", "bats"):
        index.delete(name)
        assert (await checked(stub, name, mend=True)).mended

    assert await matched(stub) == before
    assert index.describe("current").id == "bats"


async def test_a_graph_left_out_is_left_out_again_until_it_was_built(
    stub: pb_grpc.QueryServiceStub, store: FolderStore
) -> None:
    await filled(stub)
    record = store.read("collections/birds/published.json")
    skipping = pb.PublishCollectionRequest(collection_id="birds", skip_graph=True)
    await stub.PublishCollection(skipping)
    assert store.read("collections/birds/published.json") == record
    store.delete("collections/birds/published.json")

    await stub.PublishCollection(skipping)
    assert b"skip_graph" in store.read("collections/birds/published.json")
    await publish(stub)

    assert store.read("collections/birds/published.json") == record


async def test_a_collection_without_records_or_with_damaged_ones_is_never_mended_by_guessing(
    stub: pb_grpc.QueryServiceStub, store: FolderStore
) -> None:
    await filled(stub)
    before = await matched(stub)
    [damaged, _] = store.keys("collections/birds/sources/")
    store.put(damaged, b"{")
    request = pb.CheckCollectionRequest(collection_id="birds", mend=True)
    refused = await refusal(stub.CheckCollection(request))
    assert isinstance(refused, CorruptObjectError)
    assert damaged in refused.message

    store.delete("collections/birds/spec.json")
    await create(stub)
    refused = await refusal(stub.CheckCollection(request))

    assert isinstance(refused, NotFoundError)
    assert "does not tell what collection 'birds' holds" in refused.message
    assert await matched(stub) == before
