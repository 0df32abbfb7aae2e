"""Tracks into and against a collection."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from services.audio.match_table import MatchTable, SourceRef
from services.audio.track import DescriptorTrack
from services.errors import InvalidInputError, NotReadyError, SettingsMismatchError
from services.query.edge import EdgeIndex
from services.query.index import CollectionSpec, VectorIndex
from services.query.matching import index_track, match_track

NAMES = ("loud", "bright")


@pytest.fixture
def index(tmp_path: Path) -> Iterator[VectorIndex]:
    opened = EdgeIndex(tmp_path)
    opened.create("birds", CollectionSpec(NAMES, 44100, 1024))
    yield opened
    opened.close()


def track(
    rows: list[list[float]],
    names: tuple[str, ...] = NAMES,
    rate: int = 44100,
    hop: int = 1024,
    source: str = "song.wav",
) -> DescriptorTrack:
    values: NDArray[np.float32] = np.array(rows, np.float32).reshape(-1, len(names))
    return DescriptorTrack(names, values, rate, hop, source)


def add(index: VectorIndex, key: str, described: DescriptorTrack) -> int:
    return index_track(index, "birds", SourceRef(key, "0" * 64, 7, "audio/wav"), described)


def test_features_are_matched_by_name_not_by_position(index: VectorIndex) -> None:
    add(index, "wren.wav", track([[0, 10], [10, 0]]))
    add(index, "owl.wav", track([[5, 5]], names=("bright", "loud")))
    index.publish("birds")

    table = match_track(index, "birds", track([[9, 0], [0, 9]], names=("bright", "loud")))

    assert table.start_samples.tolist() == [[0], [1024]]
    assert table.distances.tolist() == [[1], [1]]


def test_a_table_holds_the_sources_that_it_points_into(index: VectorIndex) -> None:
    for key, value in (("c.wav", 3), ("a.wav", 1), ("b.wav", 2)):
        add(index, key, track([[value, 0]]))
    index.publish("birds", "current")

    table = match_track(index, "current", track([[3.1, 0], [1.1, 0]]), 2)

    assert [source.key for source in table.sources] == ["a.wav", "b.wav", "c.wav"]
    assert table.sources[0] == SourceRef("a.wav", "0" * 64, 7, "audio/wav")
    assert table.source_indices.tolist() == [[2, 1], [0, 1]]
    assert (table.sample_rate_hertz, table.hop_length_samples) == (44100, 1024)
    assert (table.frame_count, table.neighbors) == (2, 2)
    np.testing.assert_allclose(table.distances, [[0.1, 1.1], [0.1, 0.9]], rtol=1e-5)
    assert [source.key for source in match_track(index, "birds", track([[3, 0]])).sources] == [
        "c.wav"
    ]


@pytest.mark.parametrize(
    ("described", "named"),
    [
        (track([[1, 2]], rate=22050), r"song\.wav.*22050.*birds.*44100"),
        (track([[1, 2]], hop=512), r"song\.wav.*512.*birds.*1024"),
        (track([[1, 2]], names=("loud", "rough")), r"song\.wav.*birds.*bright.*rough"),
        (track([[1]], names=("loud",)), r"song\.wav.*birds.*bright"),
    ],
)
def test_what_does_not_agree_is_named_on_both_sides(
    index: VectorIndex, described: DescriptorTrack, named: str
) -> None:
    with pytest.raises(SettingsMismatchError, match=named):
        add(index, "wren.wav", described)
    add(index, "wren.wav", track([[1, 2]]))
    index.publish("birds")
    with pytest.raises(SettingsMismatchError, match=named):
        match_track(index, "birds", described)


def test_an_empty_collection_says_how_to_fill_it(index: VectorIndex) -> None:
    with pytest.raises(NotReadyError, match=r"birds.*index descriptors and publish"):
        match_track(index, "birds", track([[1, 2]]))


def test_a_collection_is_matched_only_once_it_is_published(index: VectorIndex) -> None:
    add(index, "wren.wav", track([[1, 2]]))

    with pytest.raises(NotReadyError, match=r"birds.*publish it first"):
        match_track(index, "birds", track([[1, 2]]))


def test_a_track_without_frames_is_refused_by_name(index: VectorIndex) -> None:
    with pytest.raises(InvalidInputError, match=r"wren\.wav"):
        add(index, "wren.wav", track([]))
    add(index, "wren.wav", track([[1, 2]]))
    index.publish("birds")
    with pytest.raises(InvalidInputError, match=r"song\.wav.*no frames"):
        match_track(index, "birds", track([]))


def test_more_neighbours_than_frames_are_refused(index: VectorIndex) -> None:
    add(index, "wren.wav", track([[1, 2]]))
    index.publish("birds")

    with pytest.raises(InvalidInputError, match=r"2 neighbours.*birds.*1 frame"):
        match_track(index, "birds", track([[1, 2]]), 2)


@pytest.mark.parametrize(
    ("column", "values", "named"),
    [
        ("source_indices", np.array([[1]], np.uint32), "source 1"),
        ("source_indices", np.array([[0]], np.int64), "int64"),
        ("start_samples", np.zeros((2, 1), np.uint64), r"start_samples.*\(2, 1\)"),
        ("distances", np.zeros(1, np.float32), "distances"),
    ],
)
def test_a_table_whose_columns_do_not_fit_is_refused(
    column: str, values: NDArray[np.generic], named: str
) -> None:
    columns: dict[str, NDArray[np.generic]] = {
        "source_indices": np.zeros((1, 1), np.uint32),
        "start_samples": np.zeros((1, 1), np.uint64),
        "distances": np.zeros((1, 1), np.float32),
    }
    only = SourceRef("a.wav", "0" * 64, 7, "audio/wav")
    MatchTable((only,), 44100, 1024, **columns)  # type: ignore[arg-type]

    with pytest.raises(InvalidInputError, match=named):
        MatchTable((only,), 44100, 1024, **{**columns, column: values})  # type: ignore[arg-type]
