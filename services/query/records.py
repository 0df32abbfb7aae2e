"""What a collection leaves in the object store, so that its index can be rebuilt from there alone.

    collections/<id>/spec.json                  what it was made for: it exists from here on
    collections/<id>/sources/<digest>.json      each sound, and the file that holds its descriptors
    collections/<id>/published.json             that it is complete
    aliases/<alias>.json                        the collection that an alias points at

The index acknowledges first and the record follows. A crash in between leaves an index that holds
more than the store tells of: the call was not answered, and repeating it writes the record. The
other way round, a call that the index then refuses would have left a record of what never was.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TypeVar

import numpy as np
from demiurge.audio.v1.audio_pb2 import DescriptorTrack as TrackMessage
from demiurge.audio.v1.audio_pb2 import ObjectRef
from demiurge.query.v1 import collection_record_pb2 as record_pb
from demiurge.query.v1 import query_service_pb2 as pb
from google.protobuf import json_format
from google.protobuf.message import Message
from numpy.typing import NDArray

from services.audio.track import DescriptorTrack
from services.audio.track_json import write_tracks
from services.errors import CorruptObjectError, NotFoundError, ObjectKeyError
from services.query import refusals
from services.query.audit import RecordedCollection, RecordedSound
from services.query.index import Collection, CollectionSpec, Metric, Scaling
from services.runtime.messages import (
    ref_to_message,
    source_from_message,
    statistics_from_message,
    statistics_to_message,
    track_from_message,
)
from services.runtime.object_store.port import ObjectStore

Record = TypeVar("Record", bound=Message)

COLLECTIONS, ALIASES = "collections/", "aliases/"
SPEC, SOURCES, PUBLISHED = "spec.json", "sources/", "published.json"

# Unspecified values read as published.
_METRICS: Mapping[int, Metric] = {
    pb.METRIC_UNSPECIFIED: Metric.EUCLIDEAN,
    pb.METRIC_EUCLIDEAN: Metric.EUCLIDEAN,
    pb.METRIC_COSINE: Metric.COSINE,
    pb.METRIC_MANHATTAN: Metric.MANHATTAN,
}
_SCALINGS: Mapping[int, Scaling] = {
    pb.SCALING_UNSPECIFIED: Scaling.NONE,
    pb.SCALING_NONE: Scaling.NONE,
    pb.SCALING_STANDARDIZED: Scaling.STANDARDIZED,
}


class CollectionRecords:
    """Reads and writes the records of collections; blocking.

    Whatever reads raises CorruptObjectError, naming the key, for a record that is damaged.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def collection_of(self, id_or_alias: str) -> str:
        """The id of the collection that the store knows by this name; "" if it knows none."""
        # What is no key is no collection either.
        with suppress(ObjectKeyError):
            collection_id = self._alias(id_or_alias) or id_or_alias
            if self.knows(collection_id):
                return collection_id
        return ""

    def expect(self, collection_id: str, spec: CollectionSpec) -> None:
        """Raises ConflictError if the store knows a collection of this id with another `spec`.

        Asked before the index is: one that lost the collection would take any.
        """
        there = self._find(self._key(collection_id, SPEC), record_pb.CollectionRecord())
        if there and spec_from_message(there.spec) != spec:
            raise refusals.other_spec(collection_id)

    def begin(self, made: Collection) -> None:
        """Records a collection that the index has just made, unless it is recorded.

        One with frames in it and no record was filled before there were records: the store would
        claim to know all its sounds, and knows none.
        """
        # Listed before it is known that no collection has them: what comes later is not removed.
        left = list(self._store.keys(self._key(made.id, "")))
        if made.point_count or self.knows(made.id):
            return
        for key in left:
            # Of a collection of this id whose deletion was cut short.
            self._store.delete(key)
        record = record_pb.CollectionRecord(id=made.id, spec=spec_to_message(made.spec))
        self._write(self._key(made.id, SPEC), record)

    def add(
        self,
        collection_id: str,
        source: ObjectRef,
        message: TrackMessage,
        track: DescriptorTrack,
    ) -> None:
        """Records a sound that the index has taken in; `track` is what `message` holds.

        The descriptors are stored first: a record never points at nothing.
        """
        record = record_pb.SourceRecord(source=source, track=message)
        if message.WhichOneof("payload") != "object":
            content = write_tracks([track])
            key = f"descriptors/{hashlib.sha256(content).hexdigest()}.json"
            record.track.object.CopyFrom(ref_to_message(self._store.put(key, content)))
        self._write(self._source_key(collection_id, source.key), record)

    def publish(self, collection_id: str, alias: str, *, skip_graph: bool) -> None:
        """Records that the index has published a collection, and under `alias` unless empty.

        The collection first: an alias points at nothing unpublished.
        """
        key = self._key(collection_id, PUBLISHED)
        there = self._find(key, record_pb.PublicationRecord())
        # A graph that was built once stays.
        kept = skip_graph and (there is None or there.skip_graph)
        if there is None or there.skip_graph != kept:
            self._write(key, record_pb.PublicationRecord(skip_graph=kept))
        if alias:
            record = record_pb.AliasRecord(collection_id=collection_id)
            self._write(f"{ALIASES}{alias}.json", record)

    def catch_up(self, standing: Collection) -> None:
        """Records what the index published before a crash kept the record from being written.

        Which graph it has is not known then; none is what can always be added.
        """
        if not standing.published:
            return
        self.publish(standing.id, "", skip_graph=True)
        for alias in standing.aliases:
            if self._alias(alias) is None:
                self.publish(standing.id, alias, skip_graph=True)

    def knows(self, collection_id: str) -> bool:
        """Whether the store tells what a collection holds."""
        return self._store.exists(self._key(collection_id, SPEC))

    def sound_count(self, collection_id: str) -> int:
        """Number of sounds recorded, which are not read for that."""
        return sum(1 for _ in self._store.keys(self._key(collection_id, SOURCES)))

    def read(self, collection_id: str) -> RecordedCollection:
        """The collection as it should be; NotFoundError if the store knows none of this id."""
        described = self._find(self._key(collection_id, SPEC), record_pb.CollectionRecord())
        if described is None:
            raise NotFoundError(
                f"the object store does not tell what collection {collection_id!r} holds, so it "
                "can neither be compared nor rebuilt: delete it and index its sounds again",
                culprit=collection_id,
            )
        spec = spec_from_message(described.spec)
        published = self._find(self._key(collection_id, PUBLISHED), record_pb.PublicationRecord())
        return RecordedCollection(
            id=collection_id,
            spec=spec,
            sounds=tuple(self._sounds(collection_id, spec)),
            skip_graph=published.skip_graph if published else None,
            aliases=tuple(self._aliases_of(collection_id)),
            indexed=lambda key: self._store.exists(self._source_key(collection_id, key)),
        )

    def delete(self, collection_id: str) -> None:
        """Removes the records of a collection, damaged ones too; it need not have any.

        To be called once the index has let go of it: until spec.json is gone it can be rebuilt
        whole, then it is no collection any more, and half of its sounds are never taken for all.
        """
        for alias in self._aliases_of(collection_id):
            self._store.delete(f"{ALIASES}{alias}.json")
        self._store.delete(self._key(collection_id, SPEC))
        for key in list(self._store.keys(self._key(collection_id, ""))):
            self._store.delete(key)

    def any(self, collection_id: str) -> bool:
        """Whether anything is recorded of a collection, if only what a crash left of it."""
        return next(self._store.keys(self._key(collection_id, "")), None) is not None

    def _sounds(self, collection_id: str, spec: CollectionSpec) -> Iterator[RecordedSound]:
        for key in self._store.keys(self._key(collection_id, SOURCES)):
            record = self._find(key, record_pb.SourceRecord())
            if record is None:
                continue

            def frames(track: TrackMessage = record.track) -> NDArray[np.float32]:
                return track_from_message(track, self._store).ordered(spec.feature_names).values

            source = source_from_message(record.source)
            yield RecordedSound(source, record.track.frame_count, frames)

    def _aliases_of(self, collection_id: str) -> Iterator[str]:
        for key in list(self._store.keys(ALIASES)):
            alias = key.removeprefix(ALIASES).removesuffix(".json")
            if self._alias(alias) == collection_id:
                yield alias

    def _alias(self, alias: str) -> str | None:
        """The collection that an alias points at; None if its record is damaged, or not there."""
        with suppress(CorruptObjectError):
            found = self._find(f"{ALIASES}{alias}.json", record_pb.AliasRecord())
            return found and found.collection_id
        return None

    @staticmethod
    def _key(collection_id: str, name: str) -> str:
        return f"{COLLECTIONS}{collection_id}/{name}"

    def _source_key(self, collection_id: str, source_key: str) -> str:
        # By digest: a key of this length still fits in.
        digest = hashlib.sha256(source_key.encode()).hexdigest()
        return self._key(collection_id, f"{SOURCES}{digest}.json")

    def _write(self, key: str, record: Message) -> None:
        text = json_format.MessageToJson(record, preserving_proto_field_name=True)
        self._store.put(key, text.encode())

    def _find(self, key: str, record: Record) -> Record | None:
        try:
            return json_format.Parse(self._store.read(key), record)
        except NotFoundError:
            return None
        except (json_format.ParseError, UnicodeDecodeError) as error:
            raise CorruptObjectError(
                f"{key} is damaged: {error}; `demiurge doctor --deep` says what to do", culprit=key
            ) from error


def spec_from_message(message: pb.CollectionSpec) -> CollectionSpec:
    """What a collection is made for, from the wire or a record."""
    return CollectionSpec(
        feature_names=tuple(message.feature_names),
        sample_rate_hertz=message.sample_rate_hertz,
        hop_length_samples=message.hop_length_samples,
        metric=_METRICS[message.metric],
        scaling=_SCALINGS[message.scaling],
        statistics=(
            statistics_from_message(message.statistics) if message.HasField("statistics") else None
        ),
    )


def spec_to_message(spec: CollectionSpec) -> pb.CollectionSpec:
    """The same as a message; nothing in it is unspecified."""
    return pb.CollectionSpec(
        feature_names=spec.feature_names,
        sample_rate_hertz=spec.sample_rate_hertz,
        hop_length_samples=spec.hop_length_samples,
        metric=pb.Metric.Value(f"METRIC_{spec.metric.name}"),
        scaling=pb.Scaling.Value(f"SCALING_{spec.scaling.name}"),
        statistics=None if spec.statistics is None else statistics_to_message(spec.statistics),
    )
