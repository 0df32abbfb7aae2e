"""The descriptor service: a stored sound in, its stored descriptor file out."""

import asyncio
import hashlib
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TYPE_CHECKING

import orjson
from demiurge.descriptor.v1 import descriptor_service_pb2 as pb
from demiurge.descriptor.v1 import descriptor_service_pb2_grpc as pb_grpc

from services.audio.statistics import FeatureStatistics
from services.audio.track import DescriptorTrack
from services.audio.track_json import read_tracks, write_tracks
from services.descriptor import mfcc
from services.descriptor.extraction import extract_file
from services.descriptor.mfcc import ExtractionSettings
from services.descriptor.settings import DescriptorSettings
from services.errors import CorruptObjectError, InvalidInputError, NotFoundError
from services.runtime.messages import ref_to_message, statistics_to_message, track_to_message
from services.runtime.object_store.port import ObjectStore, StoredObject

if TYPE_CHECKING:
    import grpc
    from demiurge.audio.v1 import audio_pb2


class DescriptorServicer(pb_grpc.DescriptorServiceServicer):
    """demiurge.descriptor.v1.DescriptorService over one object store."""

    def __init__(self, settings: DescriptorSettings, store: ObjectStore) -> None:
        self._store = store
        # Of its own: a thread goes on when its caller leaves, and is only then free for the next.
        self._threads = ThreadPoolExecutor(settings.workers, thread_name_prefix="descriptor")

    async def warm_up(self) -> None:
        """To be awaited before the service says that it is ready."""
        await asyncio.to_thread(mfcc.warm_up)

    async def shut_down(self) -> None:
        """Returns when the files at work are described; to be called after the last request."""
        await asyncio.to_thread(self._threads.shutdown)

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
        # The thread logs with the ids of the call that it works for.
        run = copy_context().run
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, run, self._describe, request.audio, settings
        )

    def _describe(
        self, audio: "audio_pb2.ObjectRef", settings: ExtractionSettings
    ) -> pb.ExtractDescriptorsResponse:
        source = audio.key.rpartition("/")[2]
        key = descriptor_key(audio.sha256, source, settings)
        try:
            stored = self._store.stat(key)
        except NotFoundError:
            with self._store.open(audio.key, sha256=audio.sha256) as file:
                track = extract_file(file, name=source, settings=settings)
            stored = self._store.put(key, write_tracks([track]))
        else:
            track = self._read(stored)
        return pb.ExtractDescriptorsResponse(
            track=track_to_message(track, object=stored),
            object=ref_to_message(stored),
            statistics=statistics_to_message(FeatureStatistics.of(track)),
            deltas_are_zero=mfcc.deltas_are_zero(track.frame_count),
        )

    def _read(self, stored: StoredObject) -> DescriptorTrack:
        content = self._store.read(stored.key, sha256=stored.sha256)
        try:
            [track] = read_tracks(content, source=stored.key)
        except (InvalidInputError, ValueError) as error:
            raise CorruptObjectError(
                f"{stored.key}: is no longer the descriptor file that was stored; delete it, and "
                "it is made again",
                culprit=stored.key,
            ) from error
        return track


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
