from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from services.audio.track import DescriptorTrack
from services.audio.track_json import read_tracks, write_tracks
from services.errors import InvalidInputError, SettingsMismatchError

NAMES = tuple(f"mfcc{i}" for i in range(39))


def track(
    source: str = "wren.wav", frames: int = 3, rate: int = 44_100, hop: int = 1024
) -> DescriptorTrack:
    values = np.random.default_rng(frames).normal(0, 100, (frames, 39)).astype(np.float32)
    return DescriptorTrack(NAMES, values, rate, hop, source)


def equal(left: DescriptorTrack, right: DescriptorTrack) -> bool:
    return (
        left.source,
        left.feature_names,
        left.sample_rate_hertz,
        left.hop_length_samples,
        left.values.shape,
        left.values.tobytes(),
    ) == (
        right.source,
        right.feature_names,
        right.sample_rate_hertz,
        right.hop_length_samples,
        right.values.shape,
        right.values.tobytes(),
    )


def published(**fields: Any) -> dict[str, Any]:
    """Two frames of a published file, with `fields` beside or instead; None leaves one out."""
    columns = {
        "_id": ["wren.wav", "wren.wav"],
        "_sample": [0, 512],
        "mfcc0": [1.0, 2.0],
        "mfcc1": [3.0, 4.0],
        **fields,
    }
    return {name: column for name, column in columns.items() if column is not None}


def read(columns: Any) -> list[DescriptorTrack]:
    return read_tracks(orjson.dumps(columns), source="wren.json")


any_float32 = st_numpy.arrays(
    np.float32,
    st.tuples(st.integers(1, 12), st.just(2)),
    elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
)


@given(
    parts=st.dictionaries(
        st.text(st.characters(codec="utf-8"), max_size=20), any_float32, min_size=1, max_size=4
    ),
    rate=st.integers(1, 400_000),
    hop=st.integers(1, 100_000),
)
def test_tracks_come_back_bit_for_bit(parts: dict[str, np.ndarray], rate: int, hop: int) -> None:
    tracks = [
        DescriptorTrack(("mfcc0", "mfcc1"), values, rate, hop, source)
        for source, values in parts.items()
    ]

    again = read_tracks(write_tracks(tracks), source="any.json")

    assert len(again) == len(tracks)
    assert all(map(equal, again, tracks))


def test_the_layout_is_the_published_one_with_two_values_added() -> None:
    columns = orjson.loads(write_tracks([track("a.wav", 2, hop=512), track("b.wav", 1, hop=512)]))

    assert list(columns) == ["_id", "_sample", *NAMES, "_sample_rate", "_hop_length"]
    assert columns["_id"] == ["a.wav", "a.wav", "b.wav"]
    assert columns["_sample"] == [0, 512, 0]
    assert columns["_sample_rate"] == 44_100
    assert columns["_hop_length"] == 512
    assert all(len(columns[name]) == 3 for name in NAMES)


def test_features_are_read_by_name_into_natural_order() -> None:
    shuffled = {"mfcc10": [10.0], "mfcc2": [2.0], "mfcc0": [0.0], "mfcc1": [1.0]}

    [found] = read(shuffled)

    assert found.feature_names == ("mfcc0", "mfcc1", "mfcc2", "mfcc10")
    assert found.values.tolist() == [[0, 1, 2, 10]]


def test_files_of_the_published_system_have_its_rate_and_the_step_of_their_samples() -> None:
    [found] = read(published())

    assert (found.source, found.sample_rate_hertz, found.hop_length_samples) == (
        *("wren.wav", 44_100, 512),
    )


def test_published_files_of_single_frames_have_the_published_hop() -> None:
    found = read(published(_id=["a", "b"], _sample=[0, 0]))

    assert [(track.source, track.hop_length_samples) for track in found] == [
        ("a", 1024),
        ("b", 1024),
    ]


def test_a_published_prediction_is_one_track_named_for_its_file() -> None:
    [found] = read(published(_id=None, _sample=None))

    assert (found.source, found.hop_length_samples) == ("wren.json", 1024)
    assert found.values.tolist() == [[1, 3], [2, 4]]


def test_mixed_rows_are_told_apart_by_sound_and_sorted_by_sample() -> None:
    found = read(
        {
            "_id": ["b", "a", "b", "a", "c"],
            "_sample": [1024, 0, 0, 1024, 0],
            "mfcc0": [1, 2, 3, 4, 5],
        }
    )

    assert [(track.source, track.values.ravel().tolist()) for track in found] == [
        ("b", [3, 1]),
        ("a", [2, 4]),
        ("c", [5]),
    ]


@pytest.mark.parametrize(
    ("content", "field"),
    [
        (b"", "JSON"),
        (b"{", "JSON"),
        (b"\xff\xfe", "JSON"),
        (b'{"mfcc0": [NaN]}', "JSON"),
        (b"[1, 2]", "object"),
        (b"{}", "no features"),
        (b'{"_id": ["a"], "_sample": [0]}', "no features"),
        (b'{"mfcc0": []}', "no frames"),
        (b'{"mfcc0": 3}', "mfcc0"),
        (b'{"mfcc0": [null]}', "mfcc0"),
        (b'{"mfcc0": ["1"]}', "mfcc0"),
        (b'{"mfcc0": [true]}', "mfcc0"),
        (b'{"mfcc0": [[1]]}', "mfcc0"),
        (b'{"mfcc0": [1e300], "mfcc1": [0]}', "mfcc0"),
    ],
)
def test_what_is_no_descriptor_file_is_refused_by_name(content: bytes, field: str) -> None:
    with pytest.raises(InvalidInputError, match=rf"wren\.json: .*{field}") as caught:
        read_tracks(content, source="wren.json")

    assert caught.value.culprit == "wren.json"


@pytest.mark.parametrize(
    ("field", "column"),
    [
        ("mfcc1", [1.0]),
        ("mfcc1", [1.0, 2.0, 3.0]),
        ("mfcc1", [1.0, None]),
        ("_id", ["wren.wav"]),
        ("_id", ["wren.wav", 3]),
        ("_id", "wren.wav"),
        ("_id", None),
        ("_sample", None),
        ("_sample", [0]),
        ("_sample", [0, "512"]),
        ("_sample", [0, 0]),
        ("_sample", [512, 1024]),
        ("_sample", [0, 0.5]),
        ("_sample_rate", 0),
        ("_sample_rate", "44100"),
        ("_sample_rate", [44_100]),
        ("_hop_length", 511),
        ("_hop_length", -512),
        ("_hop_length", 512.5),
        ("_hop_length", True),
    ],
)
def test_fields_that_do_not_fit_are_refused_by_name(field: str, column: Any) -> None:
    expected = "_sample" if field == "_hop_length" and column == 511 else field

    with pytest.raises(InvalidInputError, match=rf"wren\.json: {expected} ") as caught:
        read(published(**{field: column}))

    assert caught.value.culprit == "wren.json"


def test_a_gap_in_time_is_refused() -> None:
    columns = {"_id": ["a"] * 3, "_sample": [0, 512, 2048], "mfcc0": [1, 2, 3]}

    with pytest.raises(InvalidInputError, match="_sample"):
        read(columns)


@pytest.mark.parametrize(
    ("tracks", "error"),
    [
        ([], InvalidInputError),
        ([track(frames=0)], InvalidInputError),
        ([track("a"), track("a")], InvalidInputError),
        ([track("a"), track("b", rate=22_050)], SettingsMismatchError),
        ([track("a"), track("b", hop=512)], SettingsMismatchError),
    ],
)
def test_tracks_that_do_not_share_a_file_are_refused(
    tracks: list[DescriptorTrack], error: type[InvalidInputError]
) -> None:
    with pytest.raises(error):
        write_tracks(tracks)


def test_tracks_of_one_file_are_brought_into_one_order_of_features() -> None:
    first = track("a")
    second = track("b").ordered(NAMES[::-1])

    again = read_tracks(write_tracks([first, second]), source="any.json")

    assert equal(again[1], track("b"))


def test_a_prediction_of_ours_is_read_as_any_track_but_not_as_a_sound() -> None:
    content = write_tracks([track()], predictor="4fq0b2xk@900")
    assert equal(read_tracks(content, source="p.json")[0], track())
    with pytest.raises(InvalidInputError, match=r"p\.json: _predictor says .*a prediction"):
        read_tracks(content, source="p.json", of_sounds_alone=True)


def test_a_published_prediction_is_not_read_as_a_sound() -> None:
    content = orjson.dumps(published(_id=None, _sample=None))
    with pytest.raises(InvalidInputError, match=r"p\.json: _id is not there: .*a prediction"):
        read_tracks(content, source="p.json", of_sounds_alone=True)


def test_descriptors_of_either_published_layout_are_of_sounds() -> None:
    for fields in ({}, {"_id": ["a.wav", "b.wav"], "_sample": [0, 0]}):
        content = orjson.dumps(published(**fields))
        found = read_tracks(content, source="p.json", of_sounds_alone=True)
        assert [each.source for each in found] == (["a.wav", "b.wav"] if fields else ["wren.wav"])
