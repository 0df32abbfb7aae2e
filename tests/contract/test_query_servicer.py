"""QueryService as clients meet it: through the server's interceptors, over a loopback port."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest
from demiurge.query.v1 import query_service_pb2 as pb
from demiurge.query.v1 import query_service_pb2_grpc as pb_grpc

from services.audio.statistics import FeatureStatistics
from services.audio.track import DescriptorTrack
from services.audio.track_json import write_tracks
from services.errors import (
    ConflictError,
    CorruptObjectError,
    DemiurgeError,
    InvalidInputError,
    NotFoundError,
    NotReadyError,
    SettingsMismatchError,
)
from services.query.edge import EdgeIndex
from services.query.settings import QuerySettings
from services.runtime.messages import (
    match_table_from_message,
    ref_to_message,
    statistics_to_message,
    track_to_message,
)
from services.runtime.object_store.folder import FolderStore
from tests.contract.query_client import (
    add,
    create,
    publish,
    reference,
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


async def test_a_database_is_made_filled_published_and_matched(
    stub: pb_grpc.QueryServiceStub,
) -> None:
    made = await create(stub)
    assert (made.published, made.point_count, made.create_time.seconds > 0) == (False, 0, True)
    assert made.spec == spec(metric=pb.METRIC_EUCLIDEAN, scaling=pb.SCALING_NONE)
    assert await create(stub, metric=pb.METRIC_EUCLIDEAN) == made

    low, high = track(np.arange(12.0).reshape(4, 3)), track(100 + np.arange(12.0).reshape(4, 3))
    assert await add(stub, "audio/birds/low.wav", low) == 4
    assert await add(stub, "audio/birds/high.wav", high) == 4
    assert await add(stub, "audio/birds/low.wav", low) == 4
    done = await publish(stub, alias="current")
    assert (done.published, done.point_count, done.source_count) == (True, 8, 2)
    assert done.aliases == ["current"]

    query = track(np.array([[100, 101, 102], [9, 10, 12.0]]))
    for mode in pb.SearchMode.values():
        answer = await stub.MatchDescriptors(
            pb.MatchDescriptorsRequest(
                collection_id="current",
                track=track_to_message(query),
                neighbors=2,
                search_mode=mode,
            )
        )
        table = match_table_from_message(answer.matches)
        keys = [source.key for source in table.sources]
        assert keys == ["audio/birds/high.wav", "audio/birds/low.wav"]
        assert answer.matches.sources[1] == reference("audio/birds/low.wav")
        assert table.source_indices.tolist() == [[0, 0], [1, 1]]
        assert table.start_samples.tolist() == [[0, 1024], [3072, 2048]]
        np.testing.assert_allclose(table.distances[0], [0, 27**0.5])
        assert (table.sample_rate_hertz, table.hop_length_samples) == (44100, 1024)

    found = await stub.GetCollection(pb.GetCollectionRequest(collection_id="current"))
    assert found.collection == done
    await stub.DeleteCollection(pb.DeleteCollectionRequest(collection_id="birds"))
    assert not (await stub.ListCollections(pb.ListCollectionsRequest())).collections


async def test_a_track_in_the_store_is_indexed_and_matched_like_one_sent_along(
    stub: pb_grpc.QueryServiceStub, store: FolderStore
) -> None:
    described = track(np.arange(12.0).reshape(4, 3), "low.wav")
    file = store.put("descriptors/low.json", write_tracks([described]))
    message = track_to_message(described)
    message.object.CopyFrom(ref_to_message(file))
    await create(stub)

    indexed = await stub.IndexDescriptors(
        pb.IndexDescriptorsRequest(
            collection_id="birds", source=reference("audio/low.wav"), track=message
        )
    )
    await publish(stub)
    matched = await stub.MatchDescriptors(
        pb.MatchDescriptorsRequest(collection_id="birds", track=message)
    )

    assert indexed.point_count == 4
    assert matched.matches.neighbors == 1
    assert list(matched.matches.start_samples) == [0, 1024, 2048, 3072]
    assert not any(matched.matches.distances)

    message.object.sha256 = "f" * 64
    refused = await refusal(
        stub.MatchDescriptors(pb.MatchDescriptorsRequest(collection_id="birds", track=message))
    )
    assert isinstance(refused, CorruptObjectError)
    assert "descriptors/low.json" in refused.message


async def test_a_standardized_collection_keeps_its_statistics_to_the_last_bit(
    stub: pb_grpc.QueryServiceStub, index: EdgeIndex
) -> None:
    moments = FeatureStatistics.of(track(np.random.default_rng(0).normal(size=(7, 3))))
    message = statistics_to_message(moments)
    changes = {"metric": pb.METRIC_MANHATTAN, "scaling": pb.SCALING_STANDARDIZED}

    made = await create(stub, statistics=message, **changes)

    assert made.spec == spec(statistics=message, **changes)
    index.delete("birds")
    again = await create(stub, statistics=message, **changes)
    assert again.spec == made.spec, "the object store keeps them to the last bit, too"
    refused = await refusal(
        stub.CreateCollection(
            pb.CreateCollectionRequest(collection_id="bare", spec=spec(**changes))
        )
    )
    assert isinstance(refused, InvalidInputError)
    assert "statistics" in refused.message


async def test_collections_are_listed_page_by_page(stub: pb_grpc.QueryServiceStub) -> None:
    for name in ("c", "a", "b"):
        await create(stub, name)

    first = await stub.ListCollections(pb.ListCollectionsRequest(page_size=2))
    second = await stub.ListCollections(
        pb.ListCollectionsRequest(page_size=2, page_token=first.next_page_token)
    )
    whole = await stub.ListCollections(pb.ListCollectionsRequest(page_size=3))

    assert [found.id for found in first.collections] == ["a", "b"]
    assert [found.id for found in second.collections] == ["c"]
    assert (second.next_page_token, whole.next_page_token) == ("", "")


async def test_each_mistake_gets_an_error_that_names_the_culprit(
    stub: pb_grpc.QueryServiceStub,
) -> None:
    frames = track(np.zeros((3, 3)))
    await create(stub, "empty")
    await create(stub, "open")
    await add(stub, "audio/a.wav", frames, "open")
    await create(stub, "birds")
    await add(stub, "audio/a.wav", frames)
    await publish(stub)

    def match(
        name: str, described: DescriptorTrack = frames, neighbors: int = 1
    ) -> "grpc.aio.UnaryUnaryCall[object, object]":
        return stub.MatchDescriptors(
            pb.MatchDescriptorsRequest(
                collection_id=name, track=track_to_message(described), neighbors=neighbors
            )
        )

    cases: list[tuple[object, type[DemiurgeError], str]] = [
        (match("bats"), NotFoundError, "'bats'; there are: birds, empty, open"),
        (match("empty"), NotReadyError, "'empty' holds no frames"),
        (match("open"), NotReadyError, "'open' is not published"),
        (match("birds", neighbors=4), InvalidInputError, "4 neighbours"),
        (match("birds", track(np.zeros((60, 3)))), InvalidInputError, "more than 50 rows"),
        (match("birds", replace(frames, hop_length_samples=512)), SettingsMismatchError, "512"),
        (
            match("birds", replace(frames, feature_names=("mfcc0", "mfcc1", "rms"))),
            SettingsMismatchError,
            "rms",
        ),
        (match("birds", neighbors=1001), InvalidInputError, "neighbors"),
        (
            stub.CreateCollection(pb.CreateCollectionRequest(collection_id="../x", spec=spec())),
            InvalidInputError,
            "collection_id",
        ),
        (
            stub.CreateCollection(
                pb.CreateCollectionRequest(
                    collection_id="birds", spec=spec(metric=pb.METRIC_COSINE)
                )
            ),
            ConflictError,
            "birds",
        ),
        (
            stub.PublishCollection(pb.PublishCollectionRequest(collection_id="empty")),
            NotReadyError,
            "empty",
        ),
        (
            stub.IndexDescriptors(
                pb.IndexDescriptorsRequest(
                    collection_id="birds",
                    source=reference("audio/late.wav"),
                    track=track_to_message(frames),
                )
            ),
            ConflictError,
            "audio/late.wav",
        ),
        (
            stub.DeleteCollection(pb.DeleteCollectionRequest(collection_id="bats")),
            NotFoundError,
            "bats",
        ),
    ]
    for call, kind, named in cases:
        refused = await refusal(call)  # type: ignore[arg-type]
        assert isinstance(refused, kind), (named, refused)
        assert named in refused.message


def test_the_folder_may_be_given_from_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DEMIURGE_QUERY_FOLDER", "~/collections")

    assert QuerySettings().folder == tmp_path / "collections"
