"""Wire messages to domain objects and back, checked where they come in."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from demiurge.audio.v1 import audio_pb2

from services.audio.match_table import MatchTable, SourceRef
from services.audio.statistics import FeatureStatistics
from services.audio.track import DescriptorTrack, Track
from services.errors import InvalidInputError, SettingsMismatchError

if TYPE_CHECKING:
    from services.runtime.object_store.port import ObjectStore, StoredObject

MAX_INLINE_BYTES = 1024 * 1024
_WIRE_FLOAT = np.dtype("<f4")


def ref_to_message(stored: "StoredObject | SourceRef") -> audio_pb2.ObjectRef:
    """The reference to one immutable object."""
    return audio_pb2.ObjectRef(
        key=stored.key,
        sha256=stored.sha256,
        size_bytes=stored.size_bytes,
        media_type=stored.media_type,
    )


def source_from_message(message: audio_pb2.ObjectRef) -> SourceRef:
    """The sound that a reference names."""
    return SourceRef(message.key, message.sha256, message.size_bytes, message.media_type)


def track_to_message(
    track: Track,
    *,
    object: "StoredObject | None" = None,  # noqa: A002 - the field's name
) -> audio_pb2.DescriptorTrack:
    """The track, inline to 1 MiB, by `object` (its stored descriptor file) beyond.

    Raises InvalidInputError if it is longer and no object is given.
    """
    message = audio_pb2.DescriptorTrack(
        feature_names=track.feature_names,
        frame_count=track.frame_count,
        sample_rate_hertz=track.sample_rate_hertz,
        hop_length_samples=track.hop_length_samples,
        framing=audio_pb2.FRAMING_CENTERED,
        source=track.source,
    )
    if track.frame_count * len(track.feature_names) * _WIRE_FLOAT.itemsize <= MAX_INLINE_BYTES:
        message.values = np.ascontiguousarray(track.values, _WIRE_FLOAT).tobytes()
    elif object is not None:
        message.object.CopyFrom(ref_to_message(object))
    else:
        raise InvalidInputError(
            f"{track.source or 'track'}: {track.frame_count} frames do not fit into one message; "
            "send it in pieces, or by its stored descriptor file",
            culprit=track.source,
        )
    return message


def track_from_message(
    message: audio_pb2.DescriptorTrack, store: "ObjectStore | None" = None
) -> DescriptorTrack:
    """The track of a message; one sent by reference is read from `store`.

    Raises InvalidInputError naming the field if the payload does not fit frames and features, or
    goes by reference where there is no store, and what reading from the store raises.
    """
    if message.WhichOneof("payload") == "object":
        return _stored_track(message, store)
    names = tuple(message.feature_names)
    expected = message.frame_count * len(names) * _WIRE_FLOAT.itemsize
    if len(message.values) != expected:
        raise InvalidInputError(
            f"{message.source or 'track'}: values hold {len(message.values)} bytes, but "
            f"{message.frame_count} frames of {len(names)} features are {expected}",
            culprit="track.values",
        )
    values = np.frombuffer(message.values, _WIRE_FLOAT).astype(np.float32)
    return DescriptorTrack(
        feature_names=names,
        values=values.reshape(message.frame_count, len(names)),
        sample_rate_hertz=message.sample_rate_hertz,
        hop_length_samples=message.hop_length_samples,
        source=message.source,
    )


def _stored_track(
    message: audio_pb2.DescriptorTrack, store: "ObjectStore | None"
) -> DescriptorTrack:
    key = message.object.key
    if store is None:
        raise InvalidInputError(
            f"{message.source or key}: this service reads no store; send the track inline",
            culprit="track.object",
        )
    from services.audio.track_json import read_tracks  # noqa: PLC0415 - most services never need it

    with store.open(key, sha256=message.object.sha256) as file:
        tracks = read_tracks(file, source=key)
    found = [track for track in tracks if track.source == message.source] or list(tracks)
    if len(found) != 1:
        raise InvalidInputError(
            f"{key}: holds {len(found)} sounds, none of them {message.source!r}",
            culprit="track.source",
        )
    track = found[0].ordered(message.feature_names)
    for name in ("frame_count", "sample_rate_hertz", "hop_length_samples"):
        if getattr(track, name) != getattr(message, name):
            raise SettingsMismatchError(
                f"{key}: {name} is {getattr(track, name)}, the message says "
                f"{getattr(message, name)}",
                culprit=f"track.{name}",
            )
    return replace(track, source=message.source or track.source)


def statistics_to_message(statistics: FeatureStatistics) -> audio_pb2.FeatureStatistics:
    """The moments of a set of frames."""
    return audio_pb2.FeatureStatistics(
        feature_names=statistics.feature_names,
        frame_count=statistics.frame_count,
        means=statistics.means.tolist(),
        variances=statistics.variances.tolist(),
    )


def statistics_from_message(message: audio_pb2.FeatureStatistics) -> FeatureStatistics:
    """The moments of a message.

    Raises InvalidInputError, naming the field, unless each feature has a finite mean and a finite
    variance that is not negative.
    """
    names = tuple(message.feature_names)
    means = np.array(message.means, np.float64)
    variances = np.array(message.variances, np.float64)
    for field, moments, least in (("means", means, -np.inf), ("variances", variances, 0.0)):
        if len(moments) != len(names):
            raise InvalidInputError(
                f"{len(moments)} {field} do not fit {len(names)} features",
                culprit=f"statistics.{field}",
            )
        if not (np.isfinite(moments) & (moments >= least)).all():
            raise InvalidInputError(
                f"{field} hold values that cannot be", culprit=f"statistics.{field}"
            )
    return FeatureStatistics(names, message.frame_count, means, variances)


def match_table_to_message(table: MatchTable) -> audio_pb2.MatchTable:
    """The matches, frame by frame, nearest first."""
    return audio_pb2.MatchTable(
        sources=[ref_to_message(source) for source in table.sources],
        sample_rate_hertz=table.sample_rate_hertz,
        hop_length_samples=table.hop_length_samples,
        neighbors=table.neighbors,
        source_indices=table.source_indices.ravel().tolist(),
        start_samples=table.start_samples.ravel().tolist(),
        distances=table.distances.ravel().tolist(),
    )


def match_table_from_message(message: audio_pb2.MatchTable) -> MatchTable:
    """The matches of a message.

    Raises InvalidInputError, naming the field, if the columns do not fit each other, their
    neighbours or the sources.
    """
    count = len(message.source_indices)
    columns: dict[str, Sequence[float]] = {
        "source_indices": message.source_indices,
        "start_samples": message.start_samples,
        "distances": message.distances,
    }
    for field, column in columns.items():
        if len(column) != count or not message.neighbors or len(column) % message.neighbors:
            raise InvalidInputError(
                f"match table: {len(column)} {field} do not fit {count} source_indices and "
                f"{message.neighbors} neighbors",
                culprit=f"matches.{field}",
            )
    shape = (-1, message.neighbors)
    return MatchTable(
        sources=tuple(source_from_message(source) for source in message.sources),
        sample_rate_hertz=message.sample_rate_hertz,
        hop_length_samples=message.hop_length_samples,
        source_indices=np.array(message.source_indices, np.uint32).reshape(shape),
        start_samples=np.array(message.start_samples, np.uint64).reshape(shape),
        distances=np.array(message.distances, np.float32).reshape(shape),
    )
