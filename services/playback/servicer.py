"""The playback service: match tables in, sound, edit list and spectrogram out."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TYPE_CHECKING

import numpy as np
from demiurge.audio.v1 import audio_pb2
from demiurge.playback.v1 import playback_service_pb2 as pb
from demiurge.playback.v1 import playback_service_pb2_grpc as pb_grpc

from services.audio.match_table import SourceRef
from services.audio.reading import Sound, channel_count_of, read_audio
from services.audio.writing import Encoding, write_audio
from services.errors import BusyError, CancelledError
from services.playback.edit_list import edit_list
from services.playback.mixer import Mixer
from services.playback.segments import PUBLISHED_CROSSFADE_SECONDS, Placement, RenderSettings
from services.playback.settings import PlaybackSettings
from services.playback.spectrogram import Spectrogram
from services.runtime.messages import match_table_from_message, ref_to_message
from services.runtime.object_store.port import ObjectStore
from services.temporary import temporary_file, temporary_room

if TYPE_CHECKING:
    import grpc

MAX_MESSAGE_BYTES = 64 * 1024
_OVERHEAD_BYTES = 64  # of everything in a StreamAudioResponse but its samples
_BEGINNING_BYTES = 64 * 1024  # holds the header of nearly any sound
_SAMPLE = np.dtype("<f4")

_PLACEMENTS = {
    pb.PLACEMENT_UNSPECIFIED: Placement.PUBLISHED,
    pb.PLACEMENT_PUBLISHED: Placement.PUBLISHED,
    pb.PLACEMENT_CENTERED: Placement.CENTERED,
}
_ENCODINGS = {
    audio_pb2.AUDIO_ENCODING_UNSPECIFIED: Encoding.WAV_PCM16,
    audio_pb2.AUDIO_ENCODING_WAV_PCM16: Encoding.WAV_PCM16,
    audio_pb2.AUDIO_ENCODING_WAV_PCM24: Encoding.WAV_PCM24,
    audio_pb2.AUDIO_ENCODING_WAV_FLOAT: Encoding.WAV_FLOAT,
    audio_pb2.AUDIO_ENCODING_FLAC: Encoding.FLAC,
}


class PlaybackServicer(pb_grpc.PlaybackServiceServicer):
    """demiurge.playback.v1.PlaybackService over one object store."""

    def __init__(self, settings: PlaybackSettings, store: ObjectStore) -> None:
        self._settings = settings
        self._store = store
        # Of its own: a thread goes on when its caller leaves, and is only then free for the next.
        self._threads = ThreadPoolExecutor(settings.workers, thread_name_prefix="playback")
        self._renders = threading.BoundedSemaphore(settings.workers + settings.queue_capacity)
        self._streams = threading.BoundedSemaphore(settings.streams)

    async def shut_down(self) -> None:
        """Returns when no render is at work any more; to be called after the last request."""
        await asyncio.to_thread(self._threads.shutdown)

    async def RenderAudio(
        self,
        request: pb.RenderAudioRequest,
        context: "grpc.aio.ServicerContext[pb.RenderAudioRequest, pb.RenderAudioResponse]",
    ) -> pb.RenderAudioResponse:
        """Renders, then stores sound, edit list and spectrogram under the output prefix."""
        _take(self._renders, f"{self._settings.queue_capacity} renders wait already")
        caller = _Caller()
        # The thread logs with the ids of the call that it works for.
        run = copy_context().run
        rendering = self._threads.submit(run, self._render, request, caller.checkpoint)
        rendering.add_done_callback(lambda _: self._renders.release())
        try:
            return await asyncio.wrap_future(rendering)
        finally:
            caller.leave()

    async def StreamAudio(
        self,
        request: pb.StreamAudioRequest,
        context: "grpc.aio.ServicerContext[pb.StreamAudioRequest, pb.StreamAudioResponse]",
    ) -> AsyncIterator[pb.StreamAudioResponse]:
        """Sends the piece while it is being joined, as fast as it is listened to."""
        _take(self._streams, f"{self._settings.streams} pieces are being streamed already")
        caller = _Caller()
        try:
            mixer = await asyncio.to_thread(self._mixer, request, caller.checkpoint)
            channels = await asyncio.to_thread(lambda: mixer.channel_count)
            frames = (MAX_MESSAGE_BYTES - _OVERHEAD_BYTES) // (channels * _SAMPLE.itemsize)
            blocks = mixer.render(frames)
            while (block := await asyncio.to_thread(next, blocks, None)) is not None:
                yield pb.StreamAudioResponse(
                    sample_rate_hertz=mixer.sample_rate_hertz,
                    channel_count=channels,
                    samples=block.astype(_SAMPLE, copy=False).tobytes(),
                )
        finally:
            caller.leave()
            self._streams.release()

    def _render(
        self, request: pb.RenderAudioRequest, checkpoint: Callable[[], None]
    ) -> pb.RenderAudioResponse:
        mixer = self._mixer(request, checkpoint)
        encoding = _ENCODINGS[request.settings.encoding]
        spectrogram = Spectrogram(mixer.sample_rate_hertz, mixer.sample_count)
        prefix = request.output_prefix
        with (
            temporary_room(prefix),
            temporary_file(prefix) as raw,
            temporary_file(prefix) as piece,
        ):
            # Through a file: an hour of sound is no reason to hold it in memory.
            for block in mixer.render():
                raw.write(block.tobytes())
                spectrogram.add(block)
            raw.flush()
            samples = np.memmap(
                raw, np.float32, "r", shape=(mixer.sample_count, mixer.channel_count)
            )
            write_audio(piece, samples, mixer.sample_rate_hertz, encoding)
            piece.flush()
            listing, picture = edit_list(mixer), spectrogram.png()
            checkpoint()
            audio = self._store.put(f"{prefix}/piece.{encoding.extension}", piece)
            edits = self._store.put(f"{prefix}/edit_list.json", listing)
            image = self._store.put(f"{prefix}/spectrogram.png", picture)
        return pb.RenderAudioResponse(
            audio=ref_to_message(audio),
            edit_list=ref_to_message(edits),
            spectrogram=ref_to_message(image),
            sample_rate_hertz=mixer.sample_rate_hertz,
            channel_count=mixer.channel_count,
            sample_count=mixer.sample_count,
            peak=mixer.peak,
            source_count=mixer.source_count,
        )

    def _mixer(
        self,
        request: pb.RenderAudioRequest | pb.StreamAudioRequest,
        checkpoint: Callable[[], None],
    ) -> Mixer:
        return Mixer(
            match_table_from_message(request.matches),
            lambda source: self._read(source, checkpoint),
            render_settings(request.settings),
            cache_bytes=self._settings.cache_mebibytes * 2**20,
            checkpoint=checkpoint,
            count_channels=lambda source: self._channels(source, checkpoint),
        )

    def _read(self, source: SourceRef, checkpoint: Callable[[], None]) -> Sound:
        with self._store.open(source.key, sha256=source.sha256) as file:
            return read_audio(file, name=source.key, checkpoint=checkpoint)

    def _channels(self, source: SourceRef, checkpoint: Callable[[], None]) -> int:
        """From the file's beginning alone, whose hash is looked at when the source is heard."""
        with self._store.open(source.key) as file:
            channels = channel_count_of(file.read(_BEGINNING_BYTES))
        return channels or self._read(source, checkpoint).channel_count


def render_settings(message: pb.RenderSettings) -> RenderSettings:
    """The settings of a message; what is unset there is as published."""
    crossfade = PUBLISHED_CROSSFADE_SECONDS
    if message.HasField("crossfade"):
        crossfade = message.crossfade.ToTimedelta().total_seconds()
    return RenderSettings(
        crossfade_seconds=crossfade,
        placement=_PLACEMENTS[message.placement],
        sample_rate_hertz=message.sample_rate_hertz,
        channel_count=message.channel_count,
    )


def _take(places: threading.BoundedSemaphore, why: str) -> None:
    if not places.acquire(blocking=False):
        raise BusyError(f"{why}: try again later")


class _Caller:
    """Whether anyone still waits for the answer; threads cannot be cancelled, only told."""

    def __init__(self) -> None:
        self._left = threading.Event()

    def leave(self) -> None:
        self._left.set()

    def checkpoint(self) -> None:
        if self._left.is_set():
            raise CancelledError("the caller went away while the piece was rendered")
