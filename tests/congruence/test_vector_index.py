"""The life of collections, for every vector index: what one does, all do."""

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from services.audio.match_table import SourceRef
from services.audio.statistics import FeatureStatistics
from services.errors import (
    CancelledError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    NotReadyError,
)
from services.query.index import (
    CollectionSpec,
    Metric,
    Neighbors,
    Scaling,
    SearchMode,
    VectorIndex,
)

HOP = 1024
Sounds = dict[str, NDArray[np.float32]]


def spec_of(
    features: int,
    metric: Metric = Metric.EUCLIDEAN,
    scaling: Scaling = Scaling.NONE,
    statistics: FeatureStatistics | None = None,
) -> CollectionSpec:
    names = tuple(f"mfcc{number}" for number in range(features))
    return CollectionSpec(names, 44100, HOP, metric, scaling, statistics)


def source(key: str, sha256: str = "0" * 64) -> SourceRef:
    return SourceRef(key, sha256, 1, "audio/wav")


def fill(index: VectorIndex, spec: CollectionSpec, sounds: Sounds, name: str = "birds") -> None:
    index.create(name, spec)
    for key, frames in sounds.items():
        index.add(name, source(key), np.asarray(frames, np.float32))
    index.publish(name)


def moments_of(found: Neighbors) -> list[list[tuple[str, int]]]:
    return [
        [(found.sources[number].key, int(start)) for number, start in zip(*row, strict=True)]
        for row in zip(found.source_indices, found.start_samples, strict=True)
    ]


def test_indexing_twice_changes_nothing(reopen_index: Callable[[], VectorIndex]) -> None:
    index = reopen_index()
    frames = np.arange(12, dtype=np.float32).reshape(6, 2)
    index.create("birds", spec_of(2))

    assert index.add("birds", source("wren.wav"), frames) == 6
    once = index.describe("birds")
    assert index.add("birds", source("wren.wav"), frames) == 6
    index.publish("birds")
    assert reopen_index().add("birds", source("wren.wav"), frames) == 6

    again = reopen_index().describe("birds")
    assert (again.point_count, again.source_count) == (6, 1)
    assert replace(again, published=False) == once


@pytest.mark.parametrize(
    ("sha256", "frames", "culprit"),
    [("1" * 64, np.zeros((2, 2)), "content"), ("0" * 64, np.ones((2, 2)), "descriptors")],
)
def test_a_sound_with_other_content_or_descriptors_is_refused(
    index: VectorIndex, sha256: str, frames: NDArray[np.float64], culprit: str
) -> None:
    index.create("birds", spec_of(2))
    index.add("birds", source("wren.wav"), np.zeros((2, 2), np.float32))

    with pytest.raises(ConflictError, match=rf"wren\.wav .*other {culprit}"):
        index.add("birds", source("wren.wav", sha256), frames.astype(np.float32))
    assert index.describe("birds").point_count == 2


def test_a_published_collection_takes_no_new_sounds(index: VectorIndex) -> None:
    fill(index, spec_of(2), {"wren.wav": np.zeros((2, 2), np.float32)})

    with pytest.raises(ConflictError, match=r"published.*owl\.wav"):
        index.add("birds", source("owl.wav"), np.zeros((2, 2), np.float32))


@pytest.mark.parametrize("shape", [(0, 2), (3, 1), (2,)])
def test_frames_that_do_not_fit_are_refused_by_name(
    index: VectorIndex, shape: tuple[int, ...]
) -> None:
    index.create("birds", spec_of(2))

    with pytest.raises(InvalidInputError, match=r"wren\.wav.*birds"):
        index.add("birds", source("wren.wav"), np.zeros(shape, np.float32))


@pytest.mark.parametrize("metric", Metric)
def test_all_survives_a_restart(reopen_index: Callable[[], VectorIndex], metric: Metric) -> None:
    generator = np.random.default_rng(4)
    sounds = {f"{name}.wav": generator.normal(size=(50, 3)).astype(np.float32) for name in "cab"}
    rows = np.concatenate(list(sounds.values())).astype(np.float64)
    names = ("mfcc0", "mfcc1", "mfcc2")
    statistics = FeatureStatistics(names, len(rows), rows.mean(axis=0), rows.var(axis=0))
    spec = spec_of(3, metric, Scaling.STANDARDIZED, statistics)
    queries = generator.normal(size=(5, 3)).astype(np.float32)
    index = reopen_index()
    fill(index, spec, sounds)
    index.publish("birds", "current")
    before = index.search("current", queries, 4, SearchMode.EXACT)
    described = index.describe("current")

    index = reopen_index()
    after = index.search("current", queries, 4, SearchMode.EXACT)

    assert index.describe("current") == described
    assert described.spec == spec
    assert moments_of(after) == moments_of(before)
    np.testing.assert_array_equal(after.distances, before.distances)


def test_creating_twice_is_free_and_another_specification_is_refused(index: VectorIndex) -> None:
    made = index.create("birds", spec_of(2))

    assert index.create("birds", spec_of(2)) == made
    others = [
        spec_of(3),
        spec_of(2, Metric.COSINE),
        replace(spec_of(2), hop_length_samples=512),
        spec_of(2, statistics=FeatureStatistics(("mfcc0", "mfcc1"), 1, np.zeros(2), np.zeros(2))),
    ]
    for other in others:
        with pytest.raises(ConflictError, match="birds"):
            index.create("birds", other)


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a b", "-x", "x" * 129, "ä", "a\n"])
def test_names_that_could_leave_the_folder_are_refused(index: VectorIndex, name: str) -> None:
    with pytest.raises(InvalidInputError):
        index.create(name, spec_of(2))
    if name:
        fill(index, spec_of(2), {"wren.wav": np.zeros((1, 2), np.float32)})
        with pytest.raises(InvalidInputError):
            index.publish("birds", name)


def test_names_that_differ_in_case_are_two_collections(index: VectorIndex) -> None:
    for name, value in (("birds", 1), ("Birds", 2)):
        fill(index, spec_of(1), {"wren.wav": np.full((1, 1), value, np.float32)}, name)
    query = np.zeros((1, 1), np.float32)

    assert index.search("birds", query, 1, SearchMode.EXACT).distances.item() == 1
    assert index.search("Birds", query, 1, SearchMode.EXACT).distances.item() == 2
    assert [found.id for found in index.list()] == ["Birds", "birds"]


def test_an_alias_moves_to_the_collection_published_last(index: VectorIndex) -> None:
    for name in ("old", "new"):
        fill(index, spec_of(1), {f"{name}.wav": np.zeros((1, 1), np.float32)}, name)
        index.publish(name, "current")

    assert index.describe("current").id == "new"
    assert index.describe("old").aliases == ()
    assert index.describe("new").aliases == ("current",)


def test_aliases_and_ids_share_one_set_of_names(index: VectorIndex) -> None:
    fill(index, spec_of(1), {"wren.wav": np.zeros((1, 1), np.float32)}, "old")
    index.create("new", spec_of(1))
    index.publish("old", "current")

    with pytest.raises(ConflictError, match="new"):
        index.publish("old", "new")
    with pytest.raises(ConflictError, match="current"):
        index.create("current", spec_of(1))


def test_a_deleted_collection_leaves_nothing_behind(index: VectorIndex) -> None:
    fill(index, spec_of(1), {"wren.wav": np.zeros((3, 1), np.float32)})
    index.publish("birds", "current")

    index.delete("birds")

    assert index.list() == []
    for name in ("birds", "current"):
        with pytest.raises(NotFoundError):
            index.describe(name)
    fill(index, spec_of(2), {"owl.wav": np.ones((1, 2), np.float32)})
    found = index.search("birds", np.zeros((1, 2), np.float32), 1, SearchMode.EXACT)
    assert moments_of(found) == [[("owl.wav", 0)]]


def test_an_unknown_collection_is_named_with_those_there_are(index: VectorIndex) -> None:
    fill(index, spec_of(1), {"wren.wav": np.zeros((1, 1), np.float32)})
    index.publish("birds", "current")
    frames = np.zeros((1, 1), np.float32)
    attempts: list[Callable[[], object]] = [
        lambda: index.describe("bats"),
        lambda: index.add("bats", source("wren.wav"), frames),
        lambda: index.publish("bats"),
        lambda: index.search("bats", frames, 1, SearchMode.EXACT),
        lambda: index.delete("bats"),
    ]
    for attempt in attempts:
        with pytest.raises(NotFoundError, match=r"'bats'.*birds"):
            attempt()
    with pytest.raises(NotFoundError, match="alias of 'birds'"):
        index.delete("current")


def test_an_empty_collection_is_not_published(index: VectorIndex) -> None:
    index.create("birds", spec_of(1))

    with pytest.raises(NotReadyError, match=r"birds.*index descriptors"):
        index.publish("birds")


@pytest.mark.parametrize("skip_graph", [True, False])
def test_published_with_or_without_a_graph_a_collection_answers_the_same(
    index: VectorIndex, skip_graph: bool
) -> None:
    generator = np.random.default_rng(5)
    sounds = {f"{name}.wav": generator.normal(size=(300, 4)).astype(np.float32) for name in "ab"}
    queries = generator.normal(size=(6, 4)).astype(np.float32)
    index.create("birds", spec_of(4))
    for key, frames in sounds.items():
        index.add("birds", source(key), frames)

    assert index.publish("birds", "current", skip_graph=skip_graph).published
    exact = index.search("current", queries, 3, SearchMode.EXACT)
    quick = index.search("current", queries, 3, SearchMode.APPROXIMATE)
    assert index.publish("birds", "current").aliases == ("current",)
    after = index.search("current", queries, 3, SearchMode.EXACT)

    assert moments_of(quick) == moments_of(exact) == moments_of(after)
    np.testing.assert_array_equal(quick.distances, exact.distances)
    with pytest.raises(ConflictError, match="published"):
        index.add("birds", source("owl.wav"), queries)


def test_every_point_that_the_engine_holds_can_be_looked_at(index: VectorIndex) -> None:
    generator = np.random.default_rng(6)
    sounds = {
        f"{name}.wav": generator.normal(size=(count, 3)).astype(np.float32)
        for name, count in (("wren", 5000), ("owl", 1))
    }
    # Distances are not taken on raw frames, but raw is what comes back.
    fill(index, spec_of(3, Metric.COSINE), sounds)

    pages = list(index.points("birds"))

    assert max(len(page.keys) for page in pages) <= 4096
    held = {
        (key, int(start)): tuple(frame)
        for page in pages
        for key, start, frame in zip(page.keys, page.start_samples, page.frames, strict=True)
    }
    assert held == {
        (key, number * HOP): tuple(frame)
        for key, frames in sounds.items()
        for number, frame in enumerate(frames)
    }
    ids = [name for page in pages for name in page.ids]
    assert len(set(ids)) == len(ids) == 5001


def test_points_of_an_unknown_collection_are_refused(index: VectorIndex) -> None:
    with pytest.raises(NotFoundError, match="'bats'"):
        next(index.points("bats"))


@pytest.mark.parametrize("calls", [1, 2, 3])
def test_a_caller_that_gave_up_stops_the_work_and_leaves_nothing_half_done(
    index: VectorIndex, calls: int
) -> None:
    frames = np.arange(6000, dtype=np.float32).reshape(3000, 2)
    index.create("birds", spec_of(2))
    index.add("birds", source("wren.wav"), frames[:10])
    asked = itertools.count(1)

    def checkpoint() -> None:
        if next(asked) >= calls:
            raise CancelledError("nobody waits")

    with pytest.raises(CancelledError, match="nobody waits"):
        index.add("birds", source("owl.wav"), frames, checkpoint=checkpoint)
    assert index.describe("birds").point_count == 10
    found = index.search("birds", frames[2999:], 1, SearchMode.EXACT)
    assert moments_of(found) == [[("wren.wav", 9 * HOP)]]

    assert index.add("birds", source("owl.wav"), frames) == 3000
    with pytest.raises(CancelledError):
        index.publish("birds", checkpoint=checkpoint)
    assert index.publish("birds").point_count == 3010
    with pytest.raises(CancelledError):
        index.search("birds", frames[:9], 1, SearchMode.EXACT, checkpoint=checkpoint)
    assert sum(len(page.keys) for page in index.points("birds")) == 3010


def test_a_search_asks_again_and_again_whether_it_is_still_wanted(index: VectorIndex) -> None:
    # More ties than any number of candidates: every frame is looked at for every query.
    fill(index, spec_of(1), {"wren.wav": np.zeros((800, 1), np.float32)})
    asked: list[None] = []

    index.search(
        "birds",
        np.zeros((50, 1), np.float32),
        1,
        SearchMode.EXACT,
        checkpoint=lambda: asked.append(None),
    )

    assert len(asked) > 50


def test_sounds_may_be_added_from_many_threads(index: VectorIndex) -> None:
    index.create("birds", spec_of(1))
    sounds = {f"{number:02}.wav": np.full((20, 1), number, np.float32) for number in range(24)}

    with ThreadPoolExecutor(8) as pool:
        # Each sound twice, as a caller would that lost an answer.
        added = [
            pool.submit(index.add, "birds", source(key), frames)
            for key, frames in itertools.chain(sounds.items(), sounds.items())
        ]
        assert [task.result() for task in added] == [20] * 48
    index.publish("birds")

    assert index.describe("birds").point_count == 480
    queries = np.arange(24, dtype=np.float32)[:, None]
    found = index.search("birds", queries, 1, SearchMode.EXACT)
    assert moments_of(found) == [[(key, 0)] for key in sounds]
