"""Servers of the runtime alone, with servicers that do as they are told."""

import asyncio
import io
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import pytest
from demiurge.query.v1 import query_service_pb2 as query
from demiurge.query.v1 import query_service_pb2_grpc as query_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from typing_extensions import override

from services import errors
from services.errors import DemiurgeError
from services.runtime.call import Call, current_call
from services.runtime.channels import open_channel
from services.runtime.device_queue import Checkpoint, DeviceQueue
from services.runtime.logs import configure_logging
from services.runtime.metrics import Metrics
from services.runtime.server import Registration, Server
from services.runtime.settings import RuntimeSettings

QUERY = query.DESCRIPTOR.services_by_name["QueryService"].full_name
ERRORS = {
    kind.reason: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, DemiurgeError)
}
SETTINGS = RuntimeSettings(port=0, drain_seconds=5)
SHA = "0" * 64


class QueryServicer(query_grpc.QueryServiceServicer):
    """Does what the collection's id says."""

    def __init__(self, onward: str = "") -> None:
        self.calls: list[str] = []
        self.seen: list[Call | None] = []
        self.entered = asyncio.Event()
        self.release = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.onward = onward
        self.queue = DeviceQueue(1, metrics=Metrics().queue("device"))
        self.stopped_by: asyncio.Future[DemiurgeError] = asyncio.Future()

    def endless(self, checkpoint: Checkpoint) -> None:
        """Work that only its checkpoint ends; for a call that is no longer there."""
        loop = self.stopped_by.get_loop()
        try:
            while True:
                checkpoint()
                time.sleep(0.001)
        except DemiurgeError as error:
            loop.call_soon_threadsafe(self.stopped_by.set_result, error)
            raise

    @override
    async def GetCollection(
        self, request: query.GetCollectionRequest, context: Any
    ) -> query.GetCollectionResponse:
        wanted = request.collection_id
        self.calls.append(wanted)
        self.seen.append(current_call())
        if wanted in ERRORS:
            raise ERRORS[wanted](f"{wanted} of zaunkönig.wav", culprit="zaunkönig.wav")
        if wanted == "bug":
            raise ZeroDivisionError("the secret formula")
        if wanted == "fails-once" and self.calls.count(wanted) == 1:
            raise errors.UnavailableError("not yet")
        if wanted == "waits":
            self.entered.set()
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        if wanted == "device":
            await self.queue.run(self.endless)
        if wanted.startswith("onward:"):
            async with open_channel(self.onward, SETTINGS) as channel:
                return await query_grpc.QueryServiceStub(channel).GetCollection(
                    get(wanted.removeprefix("onward:"))
                )
        return query.GetCollectionResponse(collection=query.Collection(id=wanted))

    @override
    async def IndexDescriptors(self, request: Any, context: Any) -> Any:
        self.calls.append("index")
        if self.calls.count("index") == 1:
            raise errors.UnavailableError("not yet")
        return query.IndexDescriptorsResponse(point_count=request.track.frame_count)


def registration(servicer: QueryServicer, **hooks: Any) -> Registration:
    return Registration(
        QUERY,
        lambda server: query_grpc.add_QueryServiceServicer_to_server(servicer, server),
        **hooks,
    )


@pytest.fixture
async def start() -> AsyncIterator[Callable[..., Any]]:
    servers: list[Server] = []

    async def start(*registrations: Registration, settings: RuntimeSettings = SETTINGS) -> Server:
        server = Server(registrations, settings, Metrics())
        await server.start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        await server.stop()


@pytest.fixture
async def servicer() -> QueryServicer:
    return QueryServicer()


@pytest.fixture
async def server(start: Callable[..., Any], servicer: QueryServicer) -> Server:
    return await start(registration(servicer))


@pytest.fixture
async def channel(server: Server) -> AsyncIterator[grpc.aio.Channel]:
    async with open_channel(f"127.0.0.1:{server.port}", SETTINGS) as channel:
        yield channel


@pytest.fixture
def stub(channel: grpc.aio.Channel) -> Any:
    return query_grpc.QueryServiceStub(channel)


@pytest.fixture
def log() -> Iterator[Callable[[], list[dict[str, Any]]]]:
    root = logging.getLogger()
    before = (root.handlers, root.level)
    stream = io.StringIO()
    configure_logging(RuntimeSettings(log_level="debug"), stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.handlers, root.level = before


def get(collection: str) -> query.GetCollectionRequest:
    return query.GetCollectionRequest(collection_id=collection)


async def until(holds: Callable[[], bool]) -> None:
    """Gives the loop its turns until a condition without an event of its own holds."""
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0)


async def health(channel: grpc.aio.Channel, service: str) -> str:
    answer = await health_pb2_grpc.HealthStub(channel).Check(
        health_pb2.HealthCheckRequest(service=service)
    )
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
