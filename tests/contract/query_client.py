"""The query service behind a loopback port, and its calls in a word each."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest
from demiurge.audio.v1 import audio_pb2
from demiurge.query.v1 import query_service_pb2 as pb
from demiurge.query.v1 import query_service_pb2_grpc as pb_grpc
from numpy.typing import NDArray

from services.audio.track import DescriptorTrack
from services.errors import DemiurgeError
from services.query.edge import EdgeIndex
from services.query.servicer import QueryServicer
from services.query.settings import QuerySettings
from services.runtime.channels import open_channel
from services.runtime.messages import track_to_message
from services.runtime.metrics import Metrics
from services.runtime.object_store.folder import FolderStore
from services.runtime.server import Registration, Server
from services.runtime.settings import RuntimeSettings
from services.runtime.status import error_from_rpc

NAMES = ("mfcc0", "mfcc1", "mfcc2")
SERVICE = "demiurge.query.v1.QueryService"


@asynccontextmanager
async def served(
    folder: Path, store: FolderStore, index: EdgeIndex
) -> AsyncIterator[pb_grpc.QueryServiceStub]:
    servicer = QueryServicer(QuerySettings(folder=folder, max_rows=50), store, index)
    settings = RuntimeSettings(port=0)
    server = Server(
        [
            Registration(
                SERVICE,
                lambda server: pb_grpc.add_QueryServiceServicer_to_server(servicer, server),
            )
        ],
        settings,
        Metrics(),
    )
    await server.start()
    async with open_channel(f"127.0.0.1:{server.port}", settings) as channel:
        yield pb_grpc.QueryServiceStub(channel)
    await server.stop()


def track(frames: NDArray[np.float64], source: str = "song.wav") -> DescriptorTrack:
    return DescriptorTrack(NAMES, frames.astype(np.float32), 44100, 1024, source)


def spec(**changes: object) -> pb.CollectionSpec:
    made = pb.CollectionSpec(feature_names=NAMES, sample_rate_hertz=44100, hop_length_samples=1024)
    made.MergeFrom(pb.CollectionSpec(**changes))  # type: ignore[arg-type]
    return made


def reference(key: str) -> audio_pb2.ObjectRef:
    return audio_pb2.ObjectRef(key=key, sha256="0" * 64, size_bytes=9, media_type="audio/wav")


async def create(
    stub: pb_grpc.QueryServiceStub, name: str = "birds", **changes: object
) -> pb.Collection:
    request = pb.CreateCollectionRequest(collection_id=name, spec=spec(**changes))
    return (await stub.CreateCollection(request)).collection


async def add(
    stub: pb_grpc.QueryServiceStub, key: str, described: DescriptorTrack, name: str = "birds"
) -> int:
    request = pb.IndexDescriptorsRequest(
        collection_id=name, source=reference(key), track=track_to_message(described)
    )
    return (await stub.IndexDescriptors(request)).point_count


async def publish(
    stub: pb_grpc.QueryServiceStub, name: str = "birds", alias: str = ""
) -> pb.Collection:
    request = pb.PublishCollectionRequest(collection_id=name, alias=alias)
    return (await stub.PublishCollection(request)).collection


async def refusal(call: "grpc.aio.UnaryUnaryCall[object, object]") -> DemiurgeError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return error_from_rpc(raised.value)
