"""Search, for every vector index: what one answers, all answer, and it is what float64 says."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from services.audio.match_table import SourceRef
from services.audio.statistics import FeatureStatistics
from services.errors import InvalidInputError
from services.query.index import (
    CollectionSpec,
    Metric,
    Neighbors,
    Scaling,
    SearchMode,
    VectorIndex,
)
from services.query.search import Search

HOP = 1024
Sounds = dict[str, NDArray[np.float32]]
OpenIndex = Callable[[], AbstractContextManager[Callable[[], VectorIndex]]]


def spec_of(
    features: int,
    metric: Metric = Metric.EUCLIDEAN,
    scaling: Scaling = Scaling.NONE,
    statistics: FeatureStatistics | None = None,
) -> CollectionSpec:
    names = tuple(f"mfcc{number}" for number in range(features))
    return CollectionSpec(names, 44100, HOP, metric, scaling, statistics)


def fill(index: VectorIndex, spec: CollectionSpec, sounds: Sounds) -> None:
    index.create("birds", spec)
    for key, frames in sounds.items():
        index.add("birds", SourceRef(key, "0" * 64, 1, "audio/wav"), frames)
    index.publish("birds")


def moments(sounds: Sounds) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and population standard deviation, worked out without the code under test."""
    rows = np.concatenate(list(sounds.values())).astype(np.float64)
    deviations = rows.std(axis=0)
    return rows.mean(axis=0), np.where(deviations > 0, deviations, 1.0)


def truth(
    spec: CollectionSpec, sounds: Sounds, queries: NDArray[np.float32]
) -> list[dict[tuple[str, int], float]]:
    """For each query the distance of every (key, start sample), in plain float64 loops."""
    mean, deviation = (
        moments(sounds) if spec.scaling is Scaling.STANDARDIZED else (np.zeros(1), np.ones(1))
    )
    answers = []
    for query in (queries.astype(np.float64) - mean) / deviation:
        found = {}
        for key, frames in sounds.items():
            for number, frame in enumerate((frames.astype(np.float64) - mean) / deviation):
                if spec.metric is Metric.EUCLIDEAN:
                    distance = float(np.linalg.norm(frame - query))
                elif spec.metric is Metric.MANHATTAN:
                    distance = float(np.linalg.norm(frame - query, 1))
                else:
                    length = np.linalg.norm(frame) * np.linalg.norm(query)
                    distance = float(1 - frame @ query / length) if length else 1.0
                found[key, number * HOP] = distance
        answers.append(found)
    return answers


def moments_of(found: Neighbors) -> list[list[tuple[str, int]]]:
    return [
        [(found.sources[number].key, int(start)) for number, start in zip(*row, strict=True)]
        for row in zip(found.source_indices, found.start_samples, strict=True)
    ]


def assert_true(
    found: Neighbors, spec: CollectionSpec, sounds: Sounds, queries: NDArray[np.float32], k: int
) -> None:
    """The k smallest true distances, each really that of the moment it is given for."""
    answers = truth(spec, sounds, queries)
    for answer, places, distances in zip(
        answers, moments_of(found), found.distances.tolist(), strict=True
    ):
        assert len(set(places)) == k
        np.testing.assert_allclose(distances, sorted(answer.values())[:k], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(
            distances, [answer[place] for place in places], rtol=1e-9, atol=1e-12
        )


SMALL = st.integers(-2, 2)
DATABASES = st.integers(1, 4).flatmap(
    lambda features: st.tuples(
        st.dictionaries(
            st.sampled_from(["z.wav", "a.wav", "A.wav", "ä b.wav", "a.wav/1"]),
            st.lists(
                st.lists(SMALL, min_size=features, max_size=features), min_size=1, max_size=30
            ),
            min_size=1,
            max_size=4,
        ),
        st.lists(st.lists(SMALL, min_size=features, max_size=features), min_size=1, max_size=4),
        st.integers(1, 60),
    )
)


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("scaling", Scaling)
@settings(max_examples=15, deadline=None)
@given(case=DATABASES)
def test_exact_search_finds_what_float64_finds(
    scaling: Scaling,
    metric: Metric,
    new_index: OpenIndex,
    case: tuple[dict[str, list[list[int]]], list[list[int]], int],
) -> None:
    sounds = {key: np.array(rows, np.float32) for key, rows in case[0].items()}
    queries = np.array(case[1], np.float32)
    total = sum(len(rows) for rows in sounds.values())
    k = min(case[2], total)
    mean, deviation = moments(sounds)
    names = tuple(f"mfcc{number}" for number in range(queries.shape[1]))
    statistics = FeatureStatistics(names, total, mean, np.square(deviation))
    spec = spec_of(queries.shape[1], metric, scaling, statistics)
    with new_index() as reopen:
        index = reopen()
        fill(index, spec, sounds)
        found = index.search("birds", queries, k, SearchMode.EXACT)

    assert_true(found, spec, sounds, queries, k)
    if scaling is Scaling.NONE and metric is not Metric.COSINE:
        # Whole numbers leave no rounding: ties are ties, and who comes first is told by name.
        expected = [
            [place for _, place in sorted((distance, place) for place, distance in answer.items())]
            for answer in truth(spec, sounds, queries)
        ]
        assert moments_of(found) == [places[:k] for places in expected]


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("k", [1, 40, 150])
def test_equal_distances_resolve_by_key_and_frame_even_where_ties_exceed_k(
    index: VectorIndex, metric: Metric, k: int
) -> None:
    silence = np.tile(np.array([[-500.0, 3.0, 0.1]], np.float32), (100, 1))
    sounds = dict.fromkeys(("wren.wav", "owl.wav", "crow.wav"), silence)
    fill(index, spec_of(3, metric), sounds)

    found = index.search("birds", silence[:2] + np.float32(0.5), k, SearchMode.EXACT)

    expected = [(key, frame * HOP) for key in sorted(sounds) for frame in range(100)][:k]
    assert moments_of(found) == [expected, expected]


@pytest.mark.parametrize("metric", Metric)
def test_frames_that_float32_scores_cannot_tell_apart_are_ranked_by_float64(
    index: VectorIndex, metric: Metric
) -> None:
    generator = np.random.default_rng(1)
    base = np.array([4096.0, 4096.0, 4096.0])
    steps = generator.integers(-8, 9, size=(300, 3)) * np.spacing(np.float32(4096))
    sounds = {"wren.wav": (base + steps).astype(np.float32)}
    queries = np.array([[1.0, 2.0, 3.0], [-7e3, 1.0, 1e-3], [4096.0, 4096.0, 4097.0]], np.float32)
    spec = spec_of(3, metric)
    fill(index, spec, sounds)

    found = index.search("birds", queries, 20, SearchMode.EXACT)

    for answer, distances in zip(
        truth(spec, sounds, queries), found.distances.tolist(), strict=True
    ):
        np.testing.assert_allclose(distances, sorted(answer.values())[:20], rtol=1e-12, atol=1e-15)


def test_a_frame_without_length_is_at_cosine_distance_one(index: VectorIndex) -> None:
    sounds = {"wren.wav": np.array([[0, 0], [1, 1], [-1, -1]], np.float32)}
    fill(index, spec_of(2, Metric.COSINE), sounds)

    found = index.search("birds", np.array([[2, 2], [0, 0]], np.float32), 3, SearchMode.EXACT)

    np.testing.assert_allclose(found.distances, [[0, 1, 2], [1, 1, 1]], atol=1e-12)
    assert moments_of(found)[1] == [("wren.wav", 0), ("wren.wav", HOP), ("wren.wav", 2 * HOP)]


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("size", [1e-30, 1e-5, 1e25])
def test_very_quiet_and_very_large_frames_are_compared_as_truly(
    index: VectorIndex, metric: Metric, size: float
) -> None:
    generator = np.random.default_rng(2)
    sounds = {"wren.wav": (generator.normal(size=(200, 4)) * size).astype(np.float32)}
    queries = (generator.normal(size=(3, 4)) * size).astype(np.float32)
    spec = spec_of(4, metric)
    fill(index, spec, sounds)

    found = index.search("birds", queries, 2, SearchMode.EXACT)

    for answer, places in zip(truth(spec, sounds, queries), moments_of(found), strict=True):
        assert places == sorted(answer, key=answer.__getitem__)[:2]


@pytest.mark.parametrize("metric", Metric)
def test_the_graph_finds_nearly_all_neighbours_and_reports_their_true_distances(
    index: VectorIndex, metric: Metric
) -> None:
    generator = np.random.default_rng(3)
    centres = generator.normal(size=(40, 39)) * np.geomspace(120, 1, 39)

    def frames(count: int) -> NDArray[np.float32]:
        moved = generator.normal(size=(count, 39)) * np.geomspace(40, 0.3, 39)
        return (centres[generator.integers(40, size=count)] + moved).astype(np.float32)

    fill(index, spec_of(39, metric), {f"{name}.wav": frames(2500) for name in "abc"})
    queries = frames(60)

    exact = index.search("birds", queries, 3, SearchMode.EXACT)
    graph = index.search("birds", queries, 3, SearchMode.APPROXIMATE)

    pairs = list(zip(moments_of(exact), moments_of(graph), strict=True))
    assert np.mean([truly[0] == found[0] for truly, found in pairs]) >= 0.9
    for row, (truly, found) in enumerate(pairs):
        for place in set(truly) & set(found):
            distance = graph.distances[row, found.index(place)]
            assert distance == exact.distances[row, truly.index(place)]


@pytest.mark.parametrize("k", [0, 4])
def test_more_neighbours_than_frames_are_refused(index: VectorIndex, k: int) -> None:
    fill(index, spec_of(1), {"wren.wav": np.zeros((3, 1), np.float32)})

    with pytest.raises(InvalidInputError, match=r"birds.*3 frames"):
        index.search("birds", np.zeros((1, 1), np.float32), k, SearchMode.EXACT)


@pytest.mark.parametrize("metric", Metric)
def test_a_stretch_of_silence_is_told_apart_without_looking_at_every_frame(
    index: VectorIndex, metric: Metric, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(5)
    sounds = {
        name: (generator.normal(size=(400, 3)) * 20 + 100).astype(np.float32) for name in "ba"
    }
    for frames in sounds.values():
        frames[100:150] = 100.0
    spec = spec_of(3, metric)
    fill(index, spec, sounds)
    queries = np.array([[100, 100, 100], [90, 101, 120]], np.float32)
    scanned: list[int] = []
    scan = Search._scanned

    def counted(search: Search, some: NDArray[np.float32], *rest: object) -> object:
        scanned.append(len(some))
        return scan(search, some, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Search, "_scanned", counted)
    found = index.search("birds", queries, 3, SearchMode.EXACT)

    assert scanned == []
    assert_true(found, spec, sounds, queries, 3)
    assert moments_of(found)[0] == [("a", (100 + frame) * HOP) for frame in range(3)]
