"""Who may listen where, and who may call."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from demiurge.query.v1 import query_service_pb2_grpc as query_grpc

from services import errors
from services.runtime.channels import open_blocking_channel, open_channel
from services.runtime.metrics import Metrics
from services.runtime.security import server_credentials
from services.runtime.server import Server
from services.runtime.settings import RuntimeSettings
from services.runtime.status import remote_errors
from tests.contract.runtime.conftest import SETTINGS, QueryServicer, get, health, registration


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.0.2.1", "myhost"])  # noqa: S104
async def test_beyond_loopback_it_takes_tls_and_token_or_permission(address: str) -> None:
    with pytest.raises(errors.ConfigurationError, match="DEMIURGE_TLS_CERTIFICATE") as caught:
        await Server([], RuntimeSettings(bind_address=address, port=0), Metrics()).start()
    assert caught.value.culprit == "DEMIURGE_BIND_ADDRESS"


async def test_permission_to_bind_anywhere_is_enough() -> None:
    settings = RuntimeSettings(bind_address="0.0.0.0", port=0, allow_insecure_bind=True)  # noqa: S104
    server = Server([], settings, Metrics())
    await server.start()
    assert server.port
    await server.stop()


async def test_the_token_is_asked_of_all_but_probes_and_never_logged(
    log: Callable[[], list[dict[str, Any]]], start: Callable[..., Any], tmp_path: Path
) -> None:
    token, wrong = tmp_path / "token", tmp_path / "wrong"
    token.write_text("s3cr3t\n")
    wrong.write_text("guess")
    guarded = RuntimeSettings(port=0, token_file=token)
    server = await start(registration(QueryServicer()), settings=guarded)
    address = f"127.0.0.1:{server.port}"
    for settings in (SETTINGS, RuntimeSettings(token_file=wrong)):
        async with open_channel(address, settings) as channel:
            with pytest.raises(errors.UnauthenticatedError), remote_errors():
                await query_grpc.QueryServiceStub(channel).GetCollection(get("x"))
            assert await health(channel, "readiness") == "SERVING"
    async with open_channel(address, guarded) as channel:
        await query_grpc.QueryServiceStub(channel).GetCollection(get("x"))
    assert "s3cr3t" not in json.dumps(log())
    assert any(line.get("code") == "UNAUTHENTICATED" for line in log())
    with pytest.raises(errors.ConfigurationError, match="DEMIURGE_TLS_CA"):
        open_channel("example.org:443", guarded)


async def test_tls_protects_and_mutual_tls_asks_for_a_certificate(
    start: Callable[..., Any], certificates: Path
) -> None:
    pair = {
        "tls_certificate": certificates / "own.pem",
        "tls_key": certificates / "own.key",
    }
    trusting = RuntimeSettings(tls_ca=certificates / "ca.pem")
    both = RuntimeSettings(port=0, tls_ca=certificates / "ca.pem", **pair)
    one_way = await start(registration(QueryServicer()), settings=RuntimeSettings(port=0, **pair))
    mutual = await start(registration(QueryServicer()), settings=both)

    async def ask(server: Server, settings: RuntimeSettings) -> None:
        async with open_channel(f"localhost:{server.port}", settings) as channel:
            with remote_errors():
                await query_grpc.QueryServiceStub(channel).GetCollection(get("x"))

    await ask(one_way, trusting)
    await ask(mutual, both)
    for server, settings in ((one_way, SETTINGS), (mutual, trusting)):
        with pytest.raises(errors.UnavailableError):
            await ask(server, settings)


def open_to_localhost(settings: RuntimeSettings) -> None:
    open_blocking_channel("localhost:1", settings).close()


@pytest.mark.parametrize(
    ("field", "content"),
    [("tls_certificate", b"no pem"), ("tls_key", None), ("token_file", b" \n"), ("tls_ca", None)],
)
def test_files_that_cannot_be_used_are_refused_by_variable(
    tmp_path: Path, field: str, content: bytes | None
) -> None:
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    settings = RuntimeSettings(**{field: path})
    use = server_credentials if field in {"tls_certificate", "tls_key"} else open_to_localhost
    with pytest.raises(errors.ConfigurationError) as caught:
        use(settings)
    assert caught.value.culprit == f"DEMIURGE_{field.upper()}"
