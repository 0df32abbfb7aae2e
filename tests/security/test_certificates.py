"""Who gets through a TLS handshake: certificates of every wrong kind, and renewed ones."""

import gc
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from demiurge.query.v1 import query_service_pb2_grpc as query_grpc

from services.errors import UnauthenticatedError, UnavailableError
from services.runtime.channels import open_channel
from services.runtime.server import Server
from services.runtime.settings import RuntimeSettings
from services.runtime.status import remote_errors
from tests.conftest import Authority
from tests.contract.runtime.conftest import QueryServicer, get, registration

Start = Callable[..., Any]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates of our authority: own, expired, of another name, and for other uses."""
    folder = tmp_path_factory.mktemp("good")
    authority = Authority(folder)
    authority.issue("own")
    authority.issue("renewed")
    authority.issue("expired", days=-1)
    authority.issue("elsewhere", names="DNS:elsewhere.example")
    return folder


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate that is right in all but its authority."""
    folder = tmp_path_factory.mktemp("foreign")
    Authority(folder).issue("own")
    return folder


def held(folder: Path, name: str = "own", ca: Path | None = None, **more: Any) -> RuntimeSettings:
    """Settings with that certificate; with `ca`, mutual for a server, trust for a client."""
    return RuntimeSettings(
        port=0, tls_certificate=folder / f"{name}.pem", tls_key=folder / f"{name}.key",
        tls_ca=ca, **more,
    )  # fmt: skip


async def ask(server: Server, settings: RuntimeSettings) -> None:
    async with open_channel(f"localhost:{server.port}", settings) as channel:
        with remote_errors():
            await query_grpc.QueryServiceStub(channel).GetCollection(get("x"), timeout=5)


@pytest.mark.parametrize("name", ["expired", "elsewhere"])
async def test_a_client_refuses_a_server_whose_certificate_is(
    name: str, good: Path, start: Start
) -> None:
    server = await start(registration(QueryServicer()), settings=held(good, name))

    with pytest.raises(UnavailableError):
        await ask(server, RuntimeSettings(tls_ca=good / "ca.pem"))


async def test_a_client_refuses_a_server_of_another_authority(
    good: Path, foreign: Path, start: Start
) -> None:
    server = await start(registration(QueryServicer()), settings=held(foreign))

    with pytest.raises(UnavailableError):
        await ask(server, RuntimeSettings(tls_ca=good / "ca.pem"))


async def test_a_server_refuses_clients_without_a_certificate_of_its_authority(
    good: Path, foreign: Path, start: Start
) -> None:
    servicer = QueryServicer()
    server = await start(registration(servicer), settings=held(good, ca=good / "ca.pem"))
    strangers = (
        RuntimeSettings(),
        RuntimeSettings(tls_ca=good / "ca.pem"),
        held(foreign, ca=good / "ca.pem"),
        held(good, "expired", ca=good / "ca.pem"),
    )
    for settings in strangers:
        with pytest.raises(UnavailableError):
            await ask(server, settings)
    assert not servicer.calls

    await ask(server, held(good, ca=good / "ca.pem"))
    assert servicer.calls == ["x"]


async def test_a_certificate_alone_is_no_token(good: Path, tmp_path: Path, start: Start) -> None:
    (tmp_path / "token").write_text("s3cr3t")
    guarded = held(good, ca=good / "ca.pem", token_file=tmp_path / "token")
    server = await start(registration(QueryServicer()), settings=guarded)

    with pytest.raises(UnauthenticatedError):
        await ask(server, held(good, ca=good / "ca.pem"))
    await ask(server, guarded)


async def test_renewed_certificates_and_authorities_are_taken_without_a_restart(
    good: Path, foreign: Path, tmp_path: Path, start: Start
) -> None:
    def place(folder: Path, name: str) -> None:
        for source, target in ((f"{name}.pem", "own.pem"), (f"{name}.key", "own.key")):
            shutil.copy(folder / source, tmp_path / "next")
            (tmp_path / "next").replace(tmp_path / target)
        shutil.copy(folder / "ca.pem", tmp_path / "ca.pem")

    place(good, "expired")
    ours, theirs = held(good, ca=good / "ca.pem"), held(foreign, ca=foreign / "ca.pem")
    server = await start(
        registration(QueryServicer()), settings=held(tmp_path, ca=tmp_path / "ca.pem")
    )
    gc.collect()  # gRPC asks for certificates as long as the server lives
    with pytest.raises(UnavailableError):
        await ask(server, ours)

    place(good, "renewed")
    await ask(server, ours)

    # Half of a renewal.
    (tmp_path / "own.key").unlink()
    await ask(server, ours)

    place(foreign, "own")
    await ask(server, theirs)
    with pytest.raises(UnavailableError):
        await ask(server, ours)
