"""What is particular to an index on a server: replicas side by side, and what a crash leaves."""

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray
from qdrant_client import models

from services.audio.match_table import SourceRef
from services.errors import (
    ConflictError,
    CorruptObjectError,
    NotFoundError,
    StorageFullError,
    UnavailableError,
)
from services.query.connection import Connection, connect
from services.query.index import CollectionSpec, SearchMode
from services.query.search import GRAPH_FROM_KIB, SEARCH_BREADTH
from services.query.server import ServerIndex
from services.query.server_collection import ServerCollection
from tests.servers.qdrant import Qdrant

SPEC = CollectionSpec(("mfcc0", "mfcc1"), 44100, 1024)
NAME = "demiurge.birds"

OpenReplica = Callable[[], ServerIndex]


@pytest.fixture
def server() -> Iterator[Qdrant]:
    with Qdrant() as started:
        yield started


@pytest.fixture
def replica(server: Qdrant) -> Iterator[OpenReplica]:
    """Opens one more index on the server."""
    with ExitStack() as stack:

        def opened() -> ServerIndex:
            connection = Connection(connect(server.url, server.grpc_port), server.url)
            index = ServerIndex(connection)
            stack.callback(index.close)
            return index

        yield opened


@pytest.fixture
def index(replica: OpenReplica) -> ServerIndex:
    return replica()


def source(key: str, sha256: str = "0" * 64) -> SourceRef:
    return SourceRef(key, sha256, 1, "audio/wav")


def frames_of(value: float, count: int = 3) -> NDArray[np.float32]:
    return np.full((count, 2), value, np.float32)


def sounds_of(index: ServerIndex, value: float, k: int) -> list[str]:
    found = index.search("birds", frames_of(value, 1), k, SearchMode.EXACT)
    return [found.sources[number].key for number in found.source_indices[0]]


def lose_record(server: Qdrant, key: str) -> None:
    """Leaves the server as a crash between a sound's frames and its record would."""
    named = models.FieldCondition(key="key", match=models.MatchValue(value=key))
    server.local.delete(NAME, models.FilterSelector(filter=models.Filter(must=[named])))


def lose_frame(server: Qdrant) -> None:
    found, _ = server.local.scroll(
        NAME,
        scroll_filter=models.Filter(must=[models.HasVectorCondition(has_vector="frame")]),
        limit=1,
    )
    server.local.delete(NAME, [point.id for point in found])


def test_frames_without_a_record_are_not_served_and_are_gone_once_it_is_published(
    server: Qdrant, index: ServerIndex
) -> None:
    index.create("birds", SPEC)
    for key, value in (("wren.wav", 0), ("owl.wav", 1)):
        index.add("birds", source(key), frames_of(value))
    lose_record(server, "owl.wav")

    assert index.describe("birds").point_count == 3
    assert sounds_of(index, 1, 3) == ["wren.wav"] * 3
    assert [key for page in index.points("birds") for key in page.keys].count(None) == 3

    assert index.publish("birds").point_count == 3
    keys = [key for page in index.points("birds") for key in page.keys]
    assert keys == ["wren.wav"] * 3


@pytest.mark.parametrize("lost", ["record", "frame"])
def test_adding_a_sound_again_mends_what_was_lost_of_it(
    server: Qdrant, index: ServerIndex, lost: str
) -> None:
    index.create("birds", SPEC)
    index.add("birds", source("wren.wav"), frames_of(0))
    if lost == "record":
        lose_record(server, "wren.wav")
    else:
        lose_frame(server)
        with pytest.raises(CorruptObjectError, match=r"birds.*index its sounds again"):
            sounds_of(index, 0, 3)
        with pytest.raises(CorruptObjectError, match=r"lacks frames of wren\.wav: index"):
            index.publish("birds")

    assert index.add("birds", source("wren.wav"), frames_of(0)) == 3
    assert index.publish("birds").point_count == 3
    assert sounds_of(index, 0, 3) == ["wren.wav"] * 3


def test_replicas_that_do_the_same_at_once_leave_one_result(replica: OpenReplica) -> None:
    replicas = [replica() for _ in range(4)]
    keys = [f"{number}.wav" for number in range(6)]
    together = threading.Barrier(len(replicas))

    def work(index: ServerIndex) -> None:
        together.wait()
        index.create("birds", SPEC)
        for number, key in enumerate(keys):
            assert index.add("birds", source(key), frames_of(number)) == 3
        together.wait()
        index.publish("birds", "current")

    with ThreadPoolExecutor(len(replicas)) as threads:
        list(threads.map(work, replicas))

    [collection] = replicas[0].list()
    assert (collection.point_count, collection.source_count) == (18, 6)
    assert (collection.published, collection.aliases) == (True, ("current",))
    for index in replicas:
        assert sounds_of(index, 5, 3) == ["5.wav"] * 3
        assert sum(len(page.keys) for page in index.points("birds")) == 18


def test_of_two_contents_under_one_key_the_first_to_enter_wins(
    server: Qdrant, replica: OpenReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = replica(), replica()
    first.create("birds", SPEC)
    enter = ServerCollection.enter

    def overtaken(*arguments: object) -> None:
        monkeypatch.undo()
        first.add("birds", source("wren.wav", "1" * 64), frames_of(1))
        enter(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(ServerCollection, "enter", overtaken)
    with pytest.raises(ConflictError, match=r"wren\.wav .*other content"):
        second.add("birds", source("wren.wav", "2" * 64), frames_of(2))

    assert second.publish("birds").point_count == 3
    found = second.search("birds", frames_of(2, 1), 3, SearchMode.EXACT)
    assert [entry.sha256 for entry in found.sources] == ["1" * 64]


def test_a_replica_sees_what_another_added_and_deleted(replica: OpenReplica) -> None:
    one, other = replica(), replica()
    one.create("birds", SPEC)
    one.add("birds", source("wren.wav"), frames_of(0))
    assert sounds_of(other, 0, 3) == ["wren.wav"] * 3
    one.add("birds", source("owl.wav"), frames_of(1))
    assert sounds_of(other, 1, 3) == ["owl.wav"] * 3

    one.delete("birds")
    one.create("birds", SPEC)
    one.add("birds", source("crow.wav"), frames_of(2))
    one.add("birds", source("jay.wav"), frames_of(9))
    assert sounds_of(other, 0, 3) == ["crow.wav"] * 3


def test_the_last_of_many_sounds_costs_as_much_as_the_first(
    server: Qdrant, index: ServerIndex
) -> None:
    index.create("birds", SPEC)
    costs = []
    for number in range(40):
        calls, answered = server.calls.total(), server.bytes_answered
        index.add("birds", source(f"{number:02}.wav"), frames_of(number, 2))
        costs.append((server.calls.total() - calls, server.bytes_answered - answered))

    assert costs[-1] == costs[1]


def test_the_graph_is_built_when_it_is_asked_for_and_waited_for(
    server: Qdrant, index: ServerIndex
) -> None:
    index.create("birds", SPEC)
    index.add("birds", source("wren.wav"), frames_of(0))
    index.publish("birds", skip_graph=True)
    without = server.calls["Collections.Update"]

    server.statuses = [
        models.CollectionStatus.GREEN,
        models.CollectionStatus.YELLOW,
        models.CollectionStatus.GREY,
    ]
    index.publish("birds")

    assert server.statuses == []
    assert server.calls["Collections.Update"] == without + 2


def test_sounds_are_taken_in_without_a_graph_which_publication_asks_for(
    server: Qdrant, index: ServerIndex
) -> None:
    index.create("birds", SPEC)
    index.add("birds", source("wren.wav"), frames_of(0))
    index.publish("birds", skip_graph=True)
    assert server.indexing_from == {NAME: 0}

    index.publish("birds")

    assert server.indexing_from == {NAME: GRAPH_FROM_KIB}


def test_what_is_acknowledged_was_waited_for_in_strong_order(
    server: Qdrant, index: ServerIndex
) -> None:
    index.create("birds", SPEC)
    index.add("birds", source("wren.wav"), frames_of(0))
    index.add("birds", source("owl.wav"), frames_of(1))
    lose_record(server, "owl.wav")
    index.publish("birds")

    assert server.writes == {("upsert", True, "Strong"), ("delete", True, "Strong")}


def test_exact_search_is_asked_for_as_such_and_approximate_search_with_its_breadth(
    server: Qdrant, index: ServerIndex
) -> None:
    index.create("birds", SPEC)
    frames = np.random.default_rng(0).normal(size=(700, 2)).astype(np.float32)
    index.add("birds", source("wren.wav"), frames)
    index.publish("birds")

    index.search("birds", frames[:2], 1, SearchMode.EXACT)
    assert [exact for exact, _ in server.searches] == [True, True]
    server.searches.clear()

    index.search("birds", frames[:1], 1, SearchMode.APPROXIMATE)
    # As many as are asked for must be in view.
    index.search("birds", frames[:1], 650, SearchMode.APPROXIMATE)
    assert server.searches == [(False, SEARCH_BREADTH), (False, 682)]


def test_a_graph_that_cannot_be_built_is_told_with_the_servers_words(
    server: Qdrant, index: ServerIndex
) -> None:
    index.create("birds", SPEC)
    index.add("birds", source("wren.wav"), frames_of(0))

    server.optimizer_error = "segment is broken"
    with pytest.raises(UnavailableError, match="segment is broken"):
        index.publish("birds")
    server.optimizer_error = "No space left on device"
    with pytest.raises(StorageFullError, match="make room"):
        index.publish("birds")

    assert not index.describe("birds").published
    assert index.publish("birds", skip_graph=True).published


def test_a_long_sound_is_taken_in_by_several_calls_at_once(
    server: Qdrant, index: ServerIndex
) -> None:
    index.create("birds", SPEC)
    frames = np.arange(10000, dtype=np.float32).reshape(5000, 2)
    assert index.add("birds", source("wren.wav"), frames) == 5000

    assert server.most_at_once["Points.Upsert"] > 1
    index.publish("birds")
    found = index.search("birds", frames[[0, 2500, 4999]], 1, SearchMode.EXACT)
    assert found.start_samples[:, 0].tolist() == [0, 2500 * 1024, 4999 * 1024]


def test_what_others_keep_on_the_server_is_not_ours(server: Qdrant, index: ServerIndex) -> None:
    vectors = models.VectorParams(size=2, distance=models.Distance.DOT)
    server.local.create_collection("birds", vectors)
    server.local.create_collection("demiurge.bats", vectors)
    index.create("birds", SPEC)
    assert index.describe("birds").point_count == 0
    with pytest.raises(CorruptObjectError, match=r"demiurge\.bats.*not one of ours"):
        index.describe("bats")

    index.delete("birds")
    assert {one.name for one in server.local.get_collections().collections} == {
        "birds",
        "demiurge.bats",
    }


@pytest.mark.parametrize(
    ("method", "attempt"),
    [
        ("Points.Upsert", lambda index: index.add("birds", source("owl.wav"), frames_of(1))),
        ("Points.QueryBatch", lambda index: sounds_of(index, 0, 1)),
        ("Collections.Update", lambda index: index.publish("birds")),
    ],
)
def test_a_collection_deleted_in_the_middle_of_a_call_is_named(
    server: Qdrant, index: ServerIndex, method: str, attempt: Callable[[ServerIndex], object]
) -> None:
    index.create("birds", SPEC)
    index.add("birds", source("wren.wav"), frames_of(0))
    server.failing[method] = (grpc.StatusCode.NOT_FOUND, "Collection `x` doesn't exist!")

    with pytest.raises(NotFoundError, match="no collection 'birds'"):
        attempt(index)


@pytest.mark.parametrize("done", [False, True])
def test_a_crash_before_or_after_any_call_is_mended_by_doing_all_again(
    server: Qdrant, replica: OpenReplica, done: bool
) -> None:
    def work(index: ServerIndex) -> None:
        index.create("birds", SPEC)
        index.add("birds", source("wren.wav"), frames_of(0))
        index.add("birds", source("owl.wav"), frames_of(1))
        index.publish("birds", "current")

    for calls in itertools.count():
        server.calls_left, server.last_is_done = calls, done
        index = replica()
        try:
            work(index)
            finished = True
        except UnavailableError:
            finished = False
        server.calls_left = None
        work(index)
        assert index.describe("current").point_count == 6
        assert sounds_of(index, 1, 3) == ["owl.wav"] * 3
        assert sum(len(page.keys) for page in index.points("birds")) == 6
        index.delete("birds")
        if finished:
            break
    assert calls > 15
