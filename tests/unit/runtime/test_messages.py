from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from demiurge.audio.v1 import audio_pb2
from hypothesis import given
from hypothesis import strategies as st

from services.audio.match_table import MatchTable, SourceRef
from services.audio.statistics import FeatureStatistics
from services.audio.track import DescriptorTrack
from services.audio.track_json import write_tracks
from services.errors import CorruptObjectError, InvalidInputError, SettingsMismatchError
from services.runtime.messages import (
    MAX_INLINE_BYTES,
    match_table_from_message,
    match_table_to_message,
    ref_to_message,
    source_from_message,
    statistics_from_message,
    statistics_to_message,
    track_from_message,
    track_to_message,
)
from services.runtime.object_store.folder import FolderStore
from services.runtime.object_store.port import StoredObject

NAMES = ("mfcc0", "mfcc1", "mfcc10")
STORED = StoredObject("descriptors/d.json", "0" * 64, 12, "application/json")


def track(frames: int) -> DescriptorTrack:
    values = np.random.default_rng(frames).normal(size=(frames, 3)).astype(np.float32)
    return DescriptorTrack(NAMES, values, 44100, 1024, "wren.wav")


@given(st.integers(0, 50))
def test_an_inline_track_comes_back_bit_for_bit(frames: int) -> None:
    sent = track(frames)
    read = track_from_message(
        audio_pb2.DescriptorTrack.FromString(track_to_message(sent).SerializeToString())
    )
    assert np.array_equal(read.values, sent.values)
    assert read.values.dtype == np.float32
    assert read.values.flags.writeable
    assert (read.feature_names, read.source) == (NAMES, "wren.wav")
    assert (read.sample_rate_hertz, read.hop_length_samples) == (44100, 1024)


def test_columns_in_another_memory_order_are_sent_row_by_row() -> None:
    sent = track(4).ordered(NAMES[::-1])
    sent = DescriptorTrack(NAMES, np.asfortranarray(sent.values), 44100, 1024)
    assert np.array_equal(track_from_message(track_to_message(sent)).values, sent.values)


def test_a_long_track_goes_by_reference_or_not_at_all() -> None:
    just_fits = MAX_INLINE_BYTES // 12
    assert track_to_message(track(just_fits), object=STORED).WhichOneof("payload") == "values"
    too_long = track(just_fits + 1)
    assert track_to_message(too_long, object=STORED).object == ref_to_message(STORED)
    with pytest.raises(InvalidInputError, match=r"wren\.wav"):
        track_to_message(too_long)


@pytest.mark.parametrize("values", [b"", bytes(35), bytes(37), bytes(48)])
def test_values_that_do_not_fit_frames_and_features_are_refused(values: bytes) -> None:
    message = track_to_message(track(3))
    message.values = values
    with pytest.raises(InvalidInputError, match="36") as caught:
        track_from_message(message)
    assert caught.value.culprit == "track.values"


def test_values_that_are_not_finite_are_refused() -> None:
    message = track_to_message(track(1))
    message.values = np.array([1, np.nan, 3], "<f4").tobytes()
    with pytest.raises(InvalidInputError, match="finite"):
        track_from_message(message)


def test_a_reference_needs_a_store() -> None:
    message = track_to_message(track(1))
    message.object.CopyFrom(ref_to_message(STORED))
    with pytest.raises(InvalidInputError) as caught:
        track_from_message(message)
    assert caught.value.culprit == "track.object"


def stored(store: FolderStore, *tracks: DescriptorTrack) -> audio_pb2.DescriptorTrack:
    """The message of the first track, by reference to a file of all."""
    message = track_to_message(tracks[0])
    file = store.put(f"descriptors/d{len(tracks)}.json", write_tracks(tracks))
    message.object.CopyFrom(ref_to_message(file))
    return message


def test_a_track_by_reference_is_read_from_the_store(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    sent, other = track(5), replace(track(3), source="robin.wav")
    for message in (stored(store, sent), stored(store, sent, other)):
        read = track_from_message(message, store)
        assert np.array_equal(read.values, sent.values)
        assert (read.feature_names, read.source) == (NAMES, "wren.wav")


def test_a_reference_must_hold_what_its_message_says(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    for field, value in (
        ("frame_count", 6),
        ("sample_rate_hertz", 22050),
        ("hop_length_samples", 512),
    ):
        message = stored(store, track(5))
        setattr(message, field, value)
        with pytest.raises(SettingsMismatchError) as caught:
            track_from_message(message, store)
        assert caught.value.culprit == f"track.{field}"
    message = stored(store, track(5))
    message.feature_names.append("mfcc2")
    with pytest.raises(SettingsMismatchError, match="mfcc2"):
        track_from_message(message, store)
    message = stored(store, track(5), replace(track(3), source="robin.wav"))
    message.source = "owl.wav"
    with pytest.raises(InvalidInputError, match=r"owl\.wav"):
        track_from_message(message, store)
    message = stored(store, track(5))
    store.put("descriptors/d1.json", b"{}")
    with pytest.raises(CorruptObjectError, match="descriptors/d"):
        track_from_message(message, store)


def test_statistics_come_back_bit_for_bit() -> None:
    sent = FeatureStatistics.of(track(7))
    read = statistics_from_message(statistics_to_message(sent))
    assert read.feature_names == NAMES
    assert read.frame_count == 7
    assert np.array_equal(read.means, sent.means)
    assert np.array_equal(read.variances, sent.variances)


@pytest.mark.parametrize(
    ("field", "moments"),
    [
        ("means", [1.0, 2.0]),
        ("means", [1.0, 2.0, float("inf")]),
        ("variances", []),
        ("variances", [1.0, 2.0, -1.0]),
        ("variances", [1.0, 2.0, float("nan")]),
    ],
)
def test_moments_that_cannot_be_are_refused_by_field(field: str, moments: list[float]) -> None:
    message = statistics_to_message(FeatureStatistics.of(track(7)))
    message.ClearField(field)
    getattr(message, field).extend(moments)
    with pytest.raises(InvalidInputError) as caught:
        statistics_from_message(message)
    assert caught.value.culprit == f"statistics.{field}"


def matches(frames: int) -> MatchTable:
    count = np.arange(frames * 2).reshape(frames, 2)
    return MatchTable(
        (SourceRef("audio/a/x.wav", "1" * 64, 3, "audio/wav"),),
        44100,
        1024,
        np.zeros((frames, 2), np.uint32),
        count.astype(np.uint64) * 2**40,
        count.astype(np.float32) / 3,
    )


@pytest.mark.parametrize("frames", [0, 1, 5])
def test_matches_come_back_bit_for_bit(frames: int) -> None:
    sent = matches(frames)
    read = match_table_from_message(match_table_to_message(sent))
    assert read.sources == sent.sources
    assert (read.sample_rate_hertz, read.hop_length_samples) == (44100, 1024)
    for column in ("source_indices", "start_samples", "distances"):
        assert np.array_equal(getattr(read, column), getattr(sent, column))
        assert getattr(read, column).shape == (frames, 2)


def test_match_columns_of_other_lengths_are_refused_by_field() -> None:
    for field in ("source_indices", "start_samples", "distances"):
        message = match_table_to_message(matches(3))
        del getattr(message, field)[-1]
        with pytest.raises(InvalidInputError):
            match_table_from_message(message)
    message = match_table_to_message(matches(3))
    message.neighbors = 0
    with pytest.raises(InvalidInputError, match="0 neighbors"):
        match_table_from_message(message)


def test_matches_that_point_beyond_the_sources_are_refused() -> None:
    message = match_table_to_message(matches(3))
    message.source_indices[2] = 1
    with pytest.raises(InvalidInputError, match="source"):
        match_table_from_message(message)


def test_a_reference_names_the_same_object_on_both_sides() -> None:
    assert ref_to_message(source_from_message(ref_to_message(STORED))) == ref_to_message(STORED)
