"""A server from its start, by way of warming up, to a stop that loses no call."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from demiurge.query.v1 import query_service_pb2_grpc as query_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from services import errors
from services.runtime.channels import open_channel
from services.runtime.metrics import Metrics
from services.runtime.server import Server
from services.runtime.settings import RuntimeSettings
from services.runtime.status import remote_errors
from tests.contract.runtime.conftest import (
    QUERY,
    SETTINGS,
    QueryServicer,
    get,
    health,
    registration,
    until,
)


async def test_a_stop_finishes_what_is_in_flight_and_refuses_what_is_new(
    server: Server, servicer: QueryServicer, channel: grpc.aio.Channel, stub: Any
) -> None:
    in_flight = asyncio.ensure_future(stub.GetCollection(get("waits")))
    await asyncio.wait_for(servicer.entered.wait(), 5)
    stopping = asyncio.create_task(server.stop())
    watching = health_pb2_grpc.HealthStub(channel).Watch(
        health_pb2.HealthCheckRequest(service="readiness")
    )
    while (await watching.read()).status == health_pb2.HealthCheckResponse.SERVING:
        pass
    assert await health(channel, QUERY) == "NOT_SERVING"
    assert await health(channel, "liveness") == await health(channel, "") == "SERVING"
    with pytest.raises(errors.UnavailableError, match="stopping"), remote_errors():
        await stub.GetCollection(get("x"))
    assert not stopping.done()
    servicer.release.set()
    assert (await in_flight).collection.id == "waits"
    await asyncio.wait_for(stopping, 5)
    assert servicer.calls == ["waits"]


async def test_a_call_that_outlasts_the_drain_is_cut_off(start: Callable[..., Any]) -> None:
    servicer = QueryServicer()
    shut_down: list[bool] = []

    async def note() -> None:
        shut_down.append(servicer.cancelled.is_set())

    settings = RuntimeSettings(port=0, drain_seconds=0.1)
    server = await start(registration(servicer, shut_down=note), settings=settings)
    async with open_channel(f"127.0.0.1:{server.port}", SETTINGS) as channel:
        stub = query_grpc.QueryServiceStub(channel)
        in_flight = asyncio.ensure_future(stub.GetCollection(get("waits")))
        await asyncio.wait_for(servicer.entered.wait(), 5)
        await asyncio.wait_for(server.stop(), 5)
        await asyncio.wait_for(servicer.cancelled.wait(), 5)
        with pytest.raises(grpc.RpcError):
            await in_flight
    assert len(shut_down) == 1


async def test_a_server_that_warms_up_is_alive_but_not_ready() -> None:
    warm = asyncio.Event()

    async def warm_up() -> None:
        await warm.wait()

    server = Server([registration(QueryServicer(), warm_up=warm_up)], SETTINGS, Metrics())
    starting = asyncio.create_task(server.start())
    await until(lambda: bool(server.port))
    async with open_channel(f"127.0.0.1:{server.port}", SETTINGS) as channel:
        assert await health(channel, "") == "SERVING"
        assert await health(channel, "readiness") == await health(channel, QUERY) == "NOT_SERVING"
        warm.set()
        await starting
        assert await health(channel, "readiness") == await health(channel, QUERY) == "SERVING"
    await server.stop()


async def test_a_warm_up_that_fails_ends_the_start() -> None:
    async def warm_up() -> None:
        raise errors.NotFoundError("no model")

    server = Server([registration(QueryServicer(), warm_up=warm_up)], SETTINGS, Metrics())
    with pytest.raises(errors.NotFoundError):
        await server.start()


async def test_a_taken_port_is_refused_by_variable(server: Server) -> None:
    with pytest.raises(errors.ConfigurationError, match="DEMIURGE_PORT"):
        await Server([], RuntimeSettings(port=server.port), Metrics()).start()


@pytest.mark.parametrize("reflection", [False, True])
async def test_the_contract_is_told_only_where_asked_for(
    start: Callable[..., Any], reflection: bool
) -> None:
    settings = RuntimeSettings(port=0, reflection=reflection)
    server = await start(registration(QueryServicer()), settings=settings)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    async with open_channel(f"127.0.0.1:{server.port}", SETTINGS) as channel:
        call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
            iter([request])
        )
        if reflection:
            listed = (await call.read()).list_services_response.service
            assert QUERY in {service.name for service in listed}
        else:
            with pytest.raises(grpc.aio.AioRpcError, match="UNIMPLEMENTED"):
                await call.read()
