"""The descriptor service: a stored sound in, its stored descriptor file out."""

import asyncio
import hashlib
from contextlib import suppress
from typing import TYPE_CHECKING

import orjson
from demiurge.descriptor.v1 import descriptor_service_pb2 as pb
from demiurge.descriptor.v1 import descriptor_service_pb2_grpc as pb_grpc

from services.audio.track_json import write_track
from services.descriptor import mfcc
from services.descriptor.description import Description, stored_description
from services.descriptor.extraction import described
from services.descriptor.mfcc import ExtractionSettings
from services.descriptor.settings import DescriptorSettings
from services.errors import NotFoundError
from services.runtime.device_queue import Checkpoint, DeviceQueue
from services.runtime.messages import ref_to_message, statistics_to_message, track_to_message
from services.runtime.metrics import QueueMetrics
from services.runtime.object_store.port import ObjectStore, StoredObject
from services.temporary import temporary_file, temporary_room

if TYPE_CHECKING:
    import grpc
    from demiurge.audio.v1 import audio_pb2


class DescriptorServicer(pb_grpc.DescriptorServiceServicer):
    """demiurge.descriptor.v1.DescriptorService over one object store."""

    def __init__(
        self,
        settings: DescriptorSettings,
        store: ObjectStore,
        metrics: QueueMetrics,
    ) -> None:
        self._store = store
        self._queue = DeviceQueue(
            settings.queue_capacity,
            name="descriptor",
            workers=settings.workers,
            metrics=metrics,
        )

    async def warm_up(self) -> None:
        """To be awaited before the service says that it is ready."""
        await asyncio.to_thread(mfcc.warm_up)

    async def shut_down(self) -> None:
        """Returns when the files at work are described; to be called after the last request."""
        await self._queue.drain()

    async def ExtractDescriptors(
        self,
        request: pb.ExtractDescriptorsRequest,
        context: "grpc.aio.ServicerContext[pb.ExtractDescriptorsRequest, pb.ExtractDescriptorsResponse]",  # noqa: E501
    ) -> pb.ExtractDescriptorsResponse:
        """Describes the sound, unless the store holds its description already."""
        settings = ExtractionSettings(
            request.settings.sample_rate_hertz or ExtractionSettings.sample_rate_hertz,
            request.settings.hop_length_samples or ExtractionSettings.hop_length,
        )
        return await self._queue.run(
            lambda checkpoint: self._describe(request.audio, settings, checkpoint)
        )

    def _describe(
        self, audio: "audio_pb2.ObjectRef", settings: ExtractionSettings, checkpoint: Checkpoint
    ) -> pb.ExtractDescriptorsResponse:
        source = audio.key.rpartition("/")[2]
        key = descriptor_key(audio.sha256, source, settings)
        # A run that finds it damaged deletes it, also between these two.
        with suppress(NotFoundError):
            stored = self._store.stat(key)
            with (
                self._store.open(key, sha256=stored.sha256) as file,
                stored_description(
                    file, key=key, source=source, settings=settings, checkpoint=checkpoint
                ) as description,
            ):
                return _answer(description, stored)
        with (
            self._store.open(audio.key, sha256=audio.sha256) as sound,
            described(sound, name=source, settings=settings, checkpoint=checkpoint) as description,
        ):
            return _answer(description, self._stored(key, description, checkpoint))

    def _stored(self, key: str, description: Description, checkpoint: Checkpoint) -> StoredObject:
        with temporary_room(key), temporary_file(key) as file:
            write_track(file, description)
            file.flush()
            checkpoint()
            return self._store.put(key, file)


def _answer(description: Description, stored: StoredObject) -> pb.ExtractDescriptorsResponse:
    return pb.ExtractDescriptorsResponse(
        track=track_to_message(description, object=stored),
        object=ref_to_message(stored),
        statistics=statistics_to_message(description.statistics()),
        deltas_are_zero=description.deltas_are_zero,
    )


def descriptor_key(audio_sha256: str, source: str, settings: ExtractionSettings) -> str:
    """Where the description of a sound is stored: named for all that its bytes depend on.

    `source` is among them, since the file says in every row which sound it describes.
    """
    depends_on = (
        mfcc.ALGORITHM,
        audio_sha256,
        source,
        settings.sample_rate_hertz,
        settings.hop_length,
    )
    return f"descriptors/{hashlib.sha256(orjson.dumps(depends_on)).hexdigest()}.json"
