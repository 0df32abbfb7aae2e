"""Probes that know neither TLS nor token: a port of their own, and the command that asks it."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from demiurge.query.v1 import query_service_pb2_grpc as query_grpc
from typer.testing import CliRunner

from services import errors
from services.cli.health import app
from services.runtime.metrics import Metrics
from services.runtime.server import Server
from services.runtime.settings import RuntimeSettings
from tests.contract.runtime.conftest import QUERY, QueryServicer, get, health, registration, until


async def told(port: int, *arguments: str) -> tuple[int, str]:
    """Exit code and words of `demiurge health`, asked beside a server of this event loop."""
    command = ["--port", str(port), *arguments]
    done = await asyncio.to_thread(CliRunner().invoke, app, command)
    return done.exit_code, str(done.exception if done.exit_code else done.output.strip())


async def test_the_health_port_answers_beside_mutual_tls_and_token_and_nothing_else(
    start: Callable[..., Any], certificates: Path, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("s3cr3t")
    settings = RuntimeSettings(
        port=0,
        health_port=0,
        token_file=token,
        tls_certificate=certificates / "own.pem",
        tls_key=certificates / "own.key",
        tls_ca=certificates / "ca.pem",
    )
    servicer = QueryServicer()
    server = await start(registration(servicer), settings=settings)
    assert server.health_port not in {0, server.port}
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.health_port}") as channel:
        assert await health(channel, "readiness") == await health(channel, QUERY) == "SERVING"
        with pytest.raises(grpc.aio.AioRpcError, match="UNIMPLEMENTED"):
            await query_grpc.QueryServiceStub(channel).GetCollection(get("x"))
    assert not servicer.calls


async def test_the_command_tells_ready_from_warming_up_and_from_draining() -> None:
    warm, end = asyncio.Event(), asyncio.Event()

    async def warm_up() -> None:
        await warm.wait()

    async def shut_down() -> None:
        await end.wait()

    settings = RuntimeSettings(port=0, health_port=0)
    hooks = {"warm_up": warm_up, "shut_down": shut_down}
    server = Server([registration(QueryServicer(), **hooks)], settings, Metrics())
    starting = asyncio.create_task(server.start())
    await until(lambda: bool(server.health_port))
    port = server.health_port
    assert await told(port) == (1, "readiness: NOT_SERVING")
    assert await told(port, "--service", "liveness") == (0, "liveness: SERVING")
    warm.set()
    await starting
    assert await told(port) == (0, "readiness: SERVING")
    assert await told(port, "--service", QUERY) == (0, f"{QUERY}: SERVING")
    code, words = await told(port, "--service", "synth")
    assert code == 1
    assert "no such service" in words
    stopping = asyncio.create_task(server.stop())
    await asyncio.sleep(0)
    assert (await told(port))[0] == 1
    assert await told(port, "--service", "liveness") == (0, "liveness: SERVING")
    end.set()
    await stopping
    code, words = await told(port)
    assert code == 1
    assert "no answer" in words


async def test_the_command_says_which_variable_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEMIURGE_HEALTH_PORT", raising=False)
    refused = CliRunner().invoke(app, [])
    assert isinstance(refused.exception, errors.ConfigurationError)
    assert refused.exception.culprit == "DEMIURGE_HEALTH_PORT"


async def test_a_taken_health_port_is_refused_by_variable(
    start: Callable[..., Any],
) -> None:
    server = await start(registration(QueryServicer()))
    settings = RuntimeSettings(port=0, health_port=server.port)
    with pytest.raises(errors.ConfigurationError, match="DEMIURGE_HEALTH_PORT"):
        await Server([], settings, Metrics()).start()
