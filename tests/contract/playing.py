"""A playback service over a folder store that can be watched and held still."""

import asyncio
import io
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import grpc
import numpy as np
import pytest
import soundfile
from demiurge.audio.v1 import audio_pb2
from demiurge.playback.v1 import playback_service_pb2 as pb
from demiurge.playback.v1 import playback_service_pb2_grpc as pb_grpc
from typing_extensions import Buffer

from services.playback.servicer import PlaybackServicer
from services.playback.settings import PlaybackSettings
from services.runtime.messages import ref_to_message
from services.runtime.metrics import Metrics
from services.runtime.object_store.folder import FolderStore
from services.runtime.server import Registration, Server
from services.runtime.settings import RuntimeSettings
from services.runtime.status import error_from_rpc

HOP = 1024
RATE = 44_100
NAME = pb.DESCRIPTOR.services_by_name["PlaybackService"].full_name


class Watched(io.BufferedReader):
    """A file that tells its store how much of it was decoded."""

    def __init__(self, file: BinaryIO, store: "CountingStore") -> None:
        super().__init__(cast(io.RawIOBase, file))
        self._store = store

    def readinto(self, buffer: Buffer) -> int:
        count = super().readinto(buffer)
        self._store.bytes_read += count
        if self._store.bytes_read > self._store.hold_after_bytes:
            self._store.holding.set()
            assert self._store.go_on.wait(20)
        return count


class CountingStore(FolderStore):
    """A folder store that counts what is read, and holds still at one key if told to."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.folder = root
        self.opened: list[str] = []
        """To be heard: with a hash."""
        self.looked_at: list[str] = []
        self.hold_at = ""
        self.hold_after_bytes = 2**60
        self.bytes_read = 0
        self.closed = threading.Event()
        self.holding = threading.Event()
        self.go_on = threading.Event()

    @contextmanager
    def open(self, key: str, *, sha256: str = "") -> Iterator[BinaryIO]:
        (self.opened if sha256 else self.looked_at).append(key)
        if sha256 and key == self.hold_at:
            self.holding.set()
            assert self.go_on.wait(20)
        with super().open(key, sha256=sha256) as file:
            try:
                yield Watched(file, self) if sha256 else file
            finally:
                if sha256:
                    self.closed.set()


@asynccontextmanager
async def playing(store: FolderStore) -> AsyncIterator[pb_grpc.PlaybackServiceStub]:
    """One render at once, one waiting, two streams."""
    servicer = PlaybackServicer(PlaybackSettings(workers=1, queue_capacity=1, streams=2), store)
    server = Server(
        [
            Registration(
                NAME,
                lambda built: pb_grpc.add_PlaybackServiceServicer_to_server(servicer, built),
                shut_down=servicer.shut_down,
            )
        ],
        RuntimeSettings(port=0),
        Metrics(),
    )
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield pb_grpc.PlaybackServiceStub(channel)
    await server.stop()


def sound(seed: int = 0, *, hops: int = 4, channels: int = 1) -> np.ndarray:
    samples = np.random.default_rng(seed).integers(-20_000, 20_000, (hops * HOP, channels))
    return samples.astype(np.int16)


def put(store: FolderStore, key: str, samples: np.ndarray, rate: int = RATE) -> audio_pb2.ObjectRef:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype="PCM_16")
    return ref_to_message(store.put(key, file.getvalue()))


def table(
    sources: list[audio_pb2.ObjectRef], matches: list[tuple[int, int]]
) -> audio_pb2.MatchTable:
    return audio_pb2.MatchTable(
        sources=sources,
        sample_rate_hertz=RATE,
        hop_length_samples=HOP,
        neighbors=1,
        source_indices=[index for index, _ in matches],
        start_samples=[start for _, start in matches],
        distances=[0.5] * len(matches),
    )


def many(store: FolderStore, count: int) -> audio_pb2.MatchTable:
    sources = [put(store, f"audio/birds/{i:02}.wav", sound(i, hops=40)) for i in range(count)]
    matches = [(index, frame * HOP) for index in range(count) for frame in range(40)]
    return table(sources, matches)


async def ended(call: grpc.aio.Call) -> None:
    """Cancels, and gives the server a moment to hear of it."""
    call.cancel()
    await asyncio.sleep(0.2)


async def failure(call: "grpc.aio.UnaryUnaryCall[object, object]") -> tuple[str, str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    error = error_from_rpc(caught.value)
    return caught.value.code().name, error.culprit, error.message
