"""Descriptor files: the JSON layout of the published descriptors, columns of equal length.

    {"_id": ["wren.wav", …], "_sample": [0, 1024, …], "mfcc0": [-227.5, …], …, "mfcc38": […],
     "_sample_rate": 44100, "_hop_length": 1024}

`_id` and `_sample` say which sound, and where in it, a row begins; the last two are ours. A
published prediction has neither of the first two: it is one track. Rows of several sounds may be
mixed, as they are in published databases.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from services.audio.track import DescriptorTrack
from services.errors import InvalidInputError, SettingsMismatchError

PUBLISHED_SAMPLE_RATE_HERTZ = 44_100
PUBLISHED_HOP_LENGTH = 1024


def write_tracks(tracks: Sequence[DescriptorTrack]) -> bytes:
    """One descriptor file of these tracks; `read_tracks` gives them back bit for bit.

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
    names = first.feature_names
    values = np.concatenate([track.ordered(names).values for track in tracks])
    starts = [np.arange(track.frame_count) * track.hop_length_samples for track in tracks]
    columns: dict[str, Any] = {
        "_id": [track.source for track in tracks for _ in range(track.frame_count)],
        "_sample": np.concatenate(starts),
    }
    for name, column in zip(names, values.T, strict=True):
        columns[name] = np.ascontiguousarray(column)
    columns["_sample_rate"] = first.sample_rate_hertz
    columns["_hop_length"] = first.hop_length_samples
    return orjson.dumps(columns, option=orjson.OPT_SERIALIZE_NUMPY)


def read_tracks(data: bytes, *, source: str) -> list[DescriptorTrack]:
    """The tracks of a descriptor file, one for each `_id`, in the order of their first rows.

    Features come in natural order (mfcc2 before mfcc10), whatever the file's. Without
    `_sample_rate` it is 44 100 Hz; without `_hop_length` it is the step of `_sample`, or 1024.
    Without `_id` and `_sample` there is one track, its source `source`.

    Raises InvalidInputError, naming `source` and the field, for anything else.
    """
    columns = _parsed(data, source)
    names = tuple(sorted((name for name in columns if not name.startswith("_")), key=_natural))
    if not names:
        raise InvalidInputError(f"{source}: holds no features", culprit=source)
    features = [_numbers(columns, name, source) for name in names]
    frames = len(features[0])
    if not frames:
        raise InvalidInputError(f"{source}: holds no frames", culprit=source)
    for name, column in zip(names, features, strict=True):
        _expect_length(name, len(column), frames, source)
    with np.errstate(over="ignore"):
        values = np.stack(features, axis=1).astype(np.float32)
    finite = np.isfinite(values).all(axis=0)
    if not finite.all():
        raise _refused(source, names[int(np.argmin(finite))], "holds values that are not finite")

    rate = _positive(columns, "_sample_rate", source) or PUBLISHED_SAMPLE_RATE_HERTZ
    hop = _positive(columns, "_hop_length", source)
    if "_id" not in columns and "_sample" not in columns:
        return [DescriptorTrack(names, values, rate, hop or PUBLISHED_HOP_LENGTH, source)]

    rows_of = _rows_by_source(columns, frames, source)
    starts = _numbers(columns, "_sample", source)
    _expect_length("_sample", len(starts), frames, source)
    tracks = []
    for identity, unordered in rows_of.items():
        rows = unordered[np.argsort(starts[unordered], kind="stable")]
        if hop is None and len(rows) > 1:
            hop = int(starts[rows[1]] - starts[rows[0]])
        expected = np.arange(len(rows)) * (hop or PUBLISHED_HOP_LENGTH)
        if (hop is not None and hop <= 0) or (starts[rows] != expected).any():
            raise _refused(
                source, "_sample", f"does not count 0, hop, 2 x hop … for {identity or 'a sound'}"
            )
        tracks.append((identity, rows))
    step = hop or PUBLISHED_HOP_LENGTH
    return [DescriptorTrack(names, values[rows], rate, step, name) for name, rows in tracks]


def _parsed(data: bytes, source: str) -> dict[str, Any]:
    try:
        columns = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise InvalidInputError(f"{source}: is not JSON: {error}", culprit=source) from None
    if not isinstance(columns, dict):
        raise InvalidInputError(f"{source}: is not a JSON object of columns", culprit=source)
    return columns


def _numbers(columns: dict[str, Any], field: str, source: str) -> NDArray[Any]:
    """One column as a 1-D array of int64 or float64."""
    column = columns.get(field)
    if not isinstance(column, list):
        raise _refused(source, field, "is not a list of numbers")
    if not set(map(type, column)) <= {int, float}:
        raise _refused(source, field, "holds something other than numbers")
    return np.asarray(column, dtype=np.float64)


def _rows_by_source(
    columns: dict[str, Any], frames: int, source: str
) -> dict[str, NDArray[np.intp]]:
    identities = columns.get("_id")
    if not isinstance(identities, list) or not set(map(type, identities)) <= {str}:
        raise _refused(source, "_id", "is not a list of names")
    _expect_length("_id", len(identities), frames, source)
    rows: dict[str, list[int]] = {}
    for row, identity in enumerate(identities):
        rows.setdefault(identity, []).append(row)
    return {identity: np.asarray(found) for identity, found in rows.items()}


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
