"""Which tokens open a server, and until when."""

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from demiurge.query.v1 import query_service_pb2_grpc as query_grpc

from services.errors import ConfigurationError, UnauthenticatedError
from services.runtime.channels import open_blocking_channel, open_channel
from services.runtime.settings import RuntimeSettings
from services.runtime.status import remote_errors
from services.runtime.tokens import Tokens, bearer
from tests.contract.runtime.conftest import QueryServicer, get, registration

LONG_AGO = "2020-01-01T00:00:00Z"
FAR_AWAY = "2999-12-31T23:59:59+01:00"


async def asked(port: int, token_file: Path | None) -> None:
    """One call with the token of that file."""
    settings = RuntimeSettings(token_file=token_file)
    async with open_channel(f"127.0.0.1:{port}", settings) as channel:
        with remote_errors():
            await query_grpc.QueryServiceStub(channel).GetCollection(get("x"))


def file_of(folder: Path, *lines: str) -> Path:
    path = folder / "token"
    path.write_text("\n".join(lines))
    return path


async def test_each_token_of_the_file_opens_the_server_until_it_expires(
    start: Callable[..., Any], log: Callable[[], list[dict[str, Any]]], tmp_path: Path
) -> None:
    held = file_of(tmp_path, "tok-a", "", f"tok-b {FAR_AWAY}", f"tok-c {LONG_AGO}", "tok-d")
    server = await start(
        registration(QueryServicer()), settings=RuntimeSettings(port=0, token_file=held)
    )

    for token in ("tok-a", "tok-b", "tok-d"):
        (tmp_path / "sent").write_text(token)
        await asked(server.port, tmp_path / "sent")
    refusals = {"tok-c": "has expired", "tok-e": "no valid bearer token", "Tok-a": "no valid"}
    for token, reason in refusals.items():
        (tmp_path / "sent").write_text(token)
        with pytest.raises(UnauthenticatedError, match=reason) as refused:
            await asked(server.port, tmp_path / "sent")
        for secret in ("first", "second", "third", "fourth"):
            assert secret not in refused.value.message
    with pytest.raises(UnauthenticatedError, match="a bearer token is needed"):
        await asked(server.port, None)

    assert "tok-" not in json.dumps(log()).lower()


async def test_a_token_is_replaced_without_a_restart_of_server_or_client(
    start: Callable[..., Any], tmp_path: Path
) -> None:
    servers, clients = tmp_path / "servers", tmp_path / "clients"
    servers.write_text("old")
    clients.write_text("old")
    guarded = RuntimeSettings(port=0, token_file=servers)
    server = await start(registration(QueryServicer()), settings=guarded)
    settings = RuntimeSettings(token_file=clients)
    async with open_channel(f"127.0.0.1:{server.port}", settings) as channel:
        stub = query_grpc.QueryServiceStub(channel)
        await stub.GetCollection(get("x"))
        servers.write_text("old\nnew")
        await stub.GetCollection(get("x"))
        # As Kubernetes does it: another file in its place.
        (tmp_path / "next").write_text("new")
        (tmp_path / "next").replace(clients)
        await stub.GetCollection(get("x"))
        servers.write_text("new")
        await stub.GetCollection(get("x"))
        clients.write_text("old")
        with pytest.raises(UnauthenticatedError), remote_errors():
            await stub.GetCollection(get("x"))


def test_a_client_sends_the_first_token_that_is_valid_as_time_goes_on(tmp_path: Path) -> None:
    times = [datetime(2026, 1, 1, tzinfo=UTC)]
    path = file_of(tmp_path, "a 2026-02-01", "b 2026-03-01T00:00:00Z")
    tokens = Tokens("token_file", path, lambda: times[-1])

    assert tokens.current() == "a"
    tokens.check(bearer("a"))
    times.append(datetime(2026, 2, 1, tzinfo=UTC))
    assert tokens.current() == "b"
    with pytest.raises(UnauthenticatedError, match="expired"):
        tokens.check(bearer("a"))
    tokens.check(bearer("b"))
    times.append(times[-1] + timedelta(days=60))
    with pytest.raises(UnauthenticatedError, match="every token in"):
        tokens.current()


def test_a_client_whose_tokens_have_all_expired_says_so_itself(tmp_path: Path) -> None:
    path = file_of(tmp_path, f"s3cr3t {LONG_AGO}")
    settings = RuntimeSettings(token_file=path)
    with (
        open_blocking_channel("localhost:1", settings) as channel,
        pytest.raises(UnauthenticatedError, match=str(path)) as refused,
    ):
        query_grpc.QueryServiceStub(channel).GetCollection(get("x"))
    assert "s3cr3t" not in refused.value.message


@pytest.mark.parametrize("damage", ["", "a b c", "tröt", "gone"])
def test_a_file_that_is_just_being_written_changes_nothing(tmp_path: Path, damage: str) -> None:
    path = file_of(tmp_path, "good")
    tokens = Tokens("token_file", path)
    if damage == "gone":
        path.unlink()
    else:
        path.write_text(damage)
        os.utime(path, ns=(0, 0))

    tokens.check(bearer("good"))
    path.write_text("better")
    tokens.check(bearer("better"))
    with pytest.raises(UnauthenticatedError):
        tokens.check(bearer("good"))


@pytest.mark.parametrize(
    "content", ["", " \n\n", "s3cr3t tomorrow", "s3cr3t 2026-13-01", "s3cr3t\x07", "sécr3t", "a\tb"]
)
def test_files_that_hold_no_tokens_are_refused_without_repeating_them(
    tmp_path: Path, content: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Tokens("token_file", file_of(tmp_path, content))
    assert refused.value.culprit == "DEMIURGE_TOKEN_FILE"
    assert "cr3t" not in refused.value.message


@pytest.mark.parametrize(
    "header", ["good", "bearer good", "Bearer  good", "Bearer good ", "Bearer", "Basic good"]
)
def test_the_header_is_exactly_scheme_and_token(tmp_path: Path, header: str) -> None:
    tokens = Tokens("token_file", file_of(tmp_path, "good"))
    with pytest.raises(UnauthenticatedError):
        tokens.check(header)
