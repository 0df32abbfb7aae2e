"""Tracks into and against a collection: what must agree is checked before frames are compared."""

import numpy as np

from services.audio.match_table import MatchTable, SourceRef
from services.audio.track import DescriptorTrack
from services.errors import InvalidInputError, NotReadyError, SettingsMismatchError
from services.query.index import (
    Checkpoint,
    CollectionSpec,
    SearchMode,
    VectorIndex,
    never_stopped,
)


def index_track(
    index: VectorIndex,
    collection_id: str,
    source: SourceRef,
    track: DescriptorTrack,
    *,
    checkpoint: Checkpoint = never_stopped,
) -> int:
    """Takes the track of `source` into a collection; returns its number of frames.

    Raises SettingsMismatchError if features, rate or hop are not the collection's, and what
    VectorIndex.add raises.
    """
    frames = _fitted(track, collection_id, index.spec(collection_id)).values
    return index.add(collection_id, source, frames, checkpoint=checkpoint)


def match_track(
    index: VectorIndex,
    id_or_alias: str,
    track: DescriptorTrack,
    neighbors: int = 1,
    mode: SearchMode = SearchMode.EXACT,
    *,
    checkpoint: Checkpoint = never_stopped,
) -> MatchTable:
    """Answers each frame of `track` with its nearest moments in a published collection.

    Raises NotFoundError for an unknown collection, NotReadyError for one that is empty or not
    published, SettingsMismatchError if features, rate or hop are not the collection's, and
    InvalidInputError for a track without frames or more neighbours than there are frames.
    """
    collection = index.describe(id_or_alias)
    if not collection.point_count:
        raise NotReadyError(
            f"collection {collection.id!r} holds no frames: index descriptors and publish it first",
            culprit=collection.id,
        )
    if not collection.published:
        raise NotReadyError(
            f"collection {collection.id!r} is not published, so it may be incomplete: "
            "publish it first",
            culprit=collection.id,
        )
    queries = _fitted(track, collection.id, collection.spec).values
    if not track.frame_count:
        raise InvalidInputError(
            f"{track.source or 'track'}: holds no frames to match", culprit=track.source
        )
    found = index.search(collection.id, queries, neighbors, mode, checkpoint=checkpoint)
    used, source_indices = np.unique(found.source_indices, return_inverse=True)
    return MatchTable(
        sources=tuple(found.sources[number] for number in used),
        sample_rate_hertz=collection.spec.sample_rate_hertz,
        hop_length_samples=collection.spec.hop_length_samples,
        source_indices=source_indices.reshape(found.source_indices.shape).astype(np.uint32),
        start_samples=found.start_samples,
        distances=found.distances.astype(np.float32),
    )


def _fitted(track: DescriptorTrack, collection_id: str, spec: CollectionSpec) -> DescriptorTrack:
    """The track with its features in the collection's order."""
    name = track.source or "track"
    ours = (track.sample_rate_hertz, track.hop_length_samples)
    theirs = (spec.sample_rate_hertz, spec.hop_length_samples)
    if ours != theirs:
        raise SettingsMismatchError(
            f"{name}: described every {ours[1]} samples at {ours[0]} Hz, "
            f"collection {collection_id!r} every {theirs[1]} samples at {theirs[0]} Hz",
            culprit=name,
        )
    if set(track.feature_names) != set(spec.feature_names):
        missing = [wanted for wanted in spec.feature_names if wanted not in track.feature_names]
        unknown = [given for given in track.feature_names if given not in spec.feature_names]
        raise SettingsMismatchError(
            f"{name}: its features are not those of collection {collection_id!r}: "
            f"missing {missing or 'none'}, not known {unknown or 'none'}",
            culprit=name,
        )
    return track.ordered(spec.feature_names)
