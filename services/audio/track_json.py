"""Descriptor files: the JSON layout of the published descriptors, columns of equal length.

    {"_id": ["wren.wav", …], "_sample": [0, 1024, …], "mfcc0": [-227.5, …], …, "mfcc38": […],
     "_sample_rate": 44100, "_hop_length": 1024}

`_id` and `_sample` say which sound, and where in it, a row begins; the last two are ours. Rows of
several sounds may be mixed, as they are in published databases. A prediction of ours says so
(`"_predictor": "4fq0b2xk@900"`); a published one has neither `_id` nor `_sample`: it is one track.
"""

import io
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from services.audio.json_columns import (
    NotColumnsError,
    numbers,
    read_columns,
    strings,
    write_columns,
)
from services.audio.published import PUBLISHED_HOP_LENGTH_SAMPLES, PUBLISHED_SAMPLE_RATE_HERTZ
from services.audio.track import DescriptorTrack, Track
from services.errors import InvalidInputError, SettingsMismatchError

_PIECE_FRAMES = 16_384


def write_tracks(tracks: Sequence[DescriptorTrack], *, predictor: str = "") -> bytes:
    """One descriptor file of these tracks; `read_tracks` gives them back bit for bit.

    `predictor` is the id of what predicted them, if they describe no recorded sounds.

    Raises InvalidInputError if there are none, one has no frames, or two have the same source;
    SettingsMismatchError if features, rates or hops differ.
    """
    if not tracks:
        raise InvalidInputError("a descriptor file needs at least one track")
    first = tracks[0]
    sources = [track.source for track in tracks]
    for index, track in enumerate(tracks):
        if not track.frame_count:
            raise InvalidInputError(f"{track.source}: holds no frames", culprit=track.source)
        if track.source in sources[:index]:
            raise InvalidInputError(f"{track.source}: given twice", culprit=track.source)
        if (track.sample_rate_hertz, track.hop_length_samples) != (
            first.sample_rate_hertz,
            first.hop_length_samples,
        ):
            raise SettingsMismatchError(
                f"{track.source}: described every {track.hop_length_samples} samples at "
                f"{track.sample_rate_hertz} Hz, {first.source} every {first.hop_length_samples} "
                f"at {first.sample_rate_hertz} Hz",
                culprit=track.source,
            )
    file = io.BytesIO()
    columns = _columns([track.ordered(first.feature_names) for track in tracks])
    write_columns(file, chain(columns, [("_predictor", predictor)] if predictor else []))
    return file.getvalue()


def write_track(file: BinaryIO, track: Track) -> None:
    """Writes what `write_tracks` answers for one track, in the memory of one of its pieces."""
    write_columns(file, _columns([track]))


def _columns(tracks: Sequence[Track]) -> Iterator[tuple[str, Any]]:
    first = tracks[0]
    ranges = [
        (track, range(start, min(start + _PIECE_FRAMES, track.frame_count)))
        for track in tracks
        for start in range(0, track.frame_count, _PIECE_FRAMES)
    ]
    yield "_id", ([track.source] * len(frames) for track, frames in ranges)
    yield "_sample", (np.asarray(frames) * track.hop_length_samples for track, frames in ranges)
    for index, name in enumerate(first.feature_names):
        yield name, (piece for track in tracks for piece in track.column(index))
    yield "_sample_rate", first.sample_rate_hertz
    yield "_hop_length", first.hop_length_samples


def read_tracks(
    data: bytes | BinaryIO, *, source: str, of_sounds_alone: bool = False
) -> list[DescriptorTrack]:
    """The tracks of a descriptor file, one for each `_id`, in the order of their first rows.

    `data` is the content, or a file at its beginning, which need not fit into memory as Python
    numbers. Features come in natural order (mfcc2 before mfcc10), whatever the file's. Without
    `_sample_rate` it is 44 100 Hz; without `_hop_length` it is the step of `_sample`, or 1024.
    Without `_id` and `_sample` there is one track, its source `source`.

    Raises InvalidInputError, naming `source` and the field, for anything else, and for predictions
    where tracks are to be `of_sounds_alone`.
    """
    columns = _parsed(io.BytesIO(data) if isinstance(data, bytes) else data, source)
    names = tuple(sorted((name for name in columns if not name.startswith("_")), key=_natural))
    if not names:
        raise InvalidInputError(f"{source}: holds no features", culprit=source)
    if of_sounds_alone:
        _refuse_prediction(columns, source)
    frames = len(columns[names[0]])
    if not frames:
        raise InvalidInputError(f"{source}: holds no frames", culprit=source)
    values = np.empty((frames, len(names)), np.float32)
    for index, name in enumerate(names):
        # Freed as it goes: all columns beside all rows would be twice the memory.
        column = columns.pop(name)
        _expect_length(name, len(column), frames, source)
        values[:, index] = column

    rate = _positive(columns, "_sample_rate", source) or PUBLISHED_SAMPLE_RATE_HERTZ
    hop = _positive(columns, "_hop_length", source)
    if "_id" not in columns and "_sample" not in columns:
        return [DescriptorTrack(names, values, rate, hop or PUBLISHED_HOP_LENGTH_SAMPLES, source)]

    rows_of = _rows_by_source(columns, frames, source)
    starts = columns.get("_sample")
    if starts is None:
        raise _refused(source, "_sample", "is not a list of numbers")
    _expect_length("_sample", len(starts), frames, source)
    tracks = []
    for identity, unordered in rows_of.items():
        rows = unordered[np.argsort(starts[unordered], kind="stable")]
        if hop is None and len(rows) > 1:
            hop = int(starts[rows[1]] - starts[rows[0]])
        expected = np.arange(len(rows)) * (hop or PUBLISHED_HOP_LENGTH_SAMPLES)
        if (hop is not None and hop <= 0) or (starts[rows] != expected).any():
            raise _refused(
                source, "_sample", f"does not count 0, hop, 2 x hop … for {identity or 'a sound'}"
            )
        tracks.append((identity, rows))
    step = hop or PUBLISHED_HOP_LENGTH_SAMPLES
    if len(tracks) == 1 and (tracks[0][1] == np.arange(frames)).all():
        return [DescriptorTrack(names, values, rate, step, tracks[0][0])]
    return [DescriptorTrack(names, values[rows], rate, step, name) for name, rows in tracks]


def _parsed(file: BinaryIO, source: str) -> dict[str, Any]:
    """Features as float32, `_sample` as float64, `_id` as (names, codes), the rest as it is."""
    columns: dict[str, Any] = {}
    try:
        for name, column in read_columns(file):
            if name == "_id":
                columns[name] = _identities(strings(name, column))
            elif name == "_sample":
                columns[name] = _joined(numbers(name, column, np.float64), np.float64)
            elif name.startswith("_"):
                columns[name] = column
            else:
                columns[name] = _joined(numbers(name, column, np.float32), np.float32)
    except NotColumnsError as error:
        raise InvalidInputError(f"{source}: {error}", culprit=source) from None
    return columns


def _refuse_prediction(columns: dict[str, Any], source: str) -> None:
    if "_predictor" in columns:
        problem = "says that this is a prediction: give descriptions of recorded sounds"
        raise _refused(source, "_predictor", problem)
    if "_id" not in columns and "_sample" not in columns:
        raise _refused(source, "_id", "is not there: this is a prediction, as published ones are")


def _joined(pieces: Iterable[NDArray[Any]], dtype: type) -> NDArray[Any]:
    return np.concatenate([np.empty(0, dtype), *pieces])


def _identities(pieces: Iterable[list[str]]) -> tuple[list[str], NDArray[np.int32]]:
    """The names in the order of their first rows, and the index of each row's name."""
    index_of: dict[str, int] = {}
    codes = (
        np.asarray([index_of.setdefault(name, len(index_of)) for name in piece], np.int32)
        for piece in pieces
    )
    joined = _joined(codes, np.int32)
    return list(index_of), joined


def _rows_by_source(
    columns: dict[str, Any], frames: int, source: str
) -> dict[str, NDArray[np.intp]]:
    if "_id" not in columns:
        raise _refused(source, "_id", "is not a list of names")
    names, codes = columns["_id"]
    _expect_length("_id", len(codes), frames, source)
    by_name = np.argsort(codes, kind="stable")
    ends = np.cumsum(np.bincount(codes, minlength=len(names)))[:-1]
    return dict(zip(names, np.split(by_name, ends), strict=True))


def _positive(columns: dict[str, Any], field: str, source: str) -> int | None:
    if field not in columns:
        return None
    value = columns[field]
    if type(value) is not int or value <= 0:
        raise _refused(source, field, f"is {value!r}, not a positive whole number")
    return value


def _expect_length(field: str, length: int, frames: int, source: str) -> None:
    if length != frames:
        raise _refused(source, field, f"has {length} rows, others {frames}")


def _natural(name: str) -> list[str | int]:
    return [int(part) if part.isdigit() else part for part in re.split(r"([0-9]+)", name)]


def _refused(source: str, field: str, why: str) -> InvalidInputError:
    return InvalidInputError(f"{source}: {field} {why}", culprit=source)
