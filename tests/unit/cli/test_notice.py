import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from demiurge.gateway.v1.gateway_service_pb2 import ListRunsRequest

from services.cli.connection import connect
from services.cli.notice import NAME, found, posted
from services.cli.up import can_call_itself
from services.errors import ConfigurationError, ConflictError
from services.runtime.addresses import loopback_of
from services.runtime.embedding import embedded, embedded_settings
from services.runtime.metrics import Metrics
from services.runtime.settings import RuntimeSettings


@pytest.fixture
def runtime(tmp_path: Path) -> RuntimeSettings:
    return RuntimeSettings(home=tmp_path)


@pytest.fixture
def address(runtime: RuntimeSettings) -> Iterator[str]:
    with embedded(list, embedded_settings(runtime), Metrics()) as server:
        yield f"127.0.0.1:{server.port}"


def test_services_are_found_while_they_run(
    tmp_path: Path, runtime: RuntimeSettings, address: str
) -> None:
    assert found(tmp_path, runtime) is None
    with posted(tmp_path, address, runtime, lasting=True):
        notice = found(tmp_path, runtime)
        assert notice
        assert notice.address == address
        assert notice.lasting
    assert found(tmp_path, runtime) is None
    assert not list(tmp_path.iterdir())


def test_a_store_is_the_same_however_it_is_written(
    tmp_path: Path, runtime: RuntimeSettings, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with posted(tmp_path, address, runtime, lasting=True):
        assert found(tmp_path, RuntimeSettings(store="store"))
        with pytest.raises(ConflictError, match="DEMIURGE_STORE"):
            found(tmp_path, RuntimeSettings(store="other"))


@pytest.mark.parametrize("left", ["", "{", "[]", "{}", '{"pid": "x"}', '{"address": 1, "pid": 1}'])
def test_a_damaged_notice_counts_as_none(
    tmp_path: Path, runtime: RuntimeSettings, left: str
) -> None:
    (tmp_path / NAME).write_text(left)
    assert found(tmp_path, runtime) is None


def test_what_a_killed_process_left_counts_as_none(
    tmp_path: Path, runtime: RuntimeSettings, address: str
) -> None:
    with posted(tmp_path, address, runtime, lasting=True):
        left = json.loads((tmp_path / NAME).read_text())
        # Beyond what any system numbers processes with.
        (tmp_path / NAME).write_text(json.dumps(left | {"pid": 2**30}))
        assert found(tmp_path, runtime) is None


def test_a_process_number_that_went_to_another_program_counts_as_none(
    tmp_path: Path, runtime: RuntimeSettings
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with posted(tmp_path, address, runtime, lasting=True):
            assert json.loads((tmp_path / NAME).read_text())["pid"] == os.getpid()
            assert found(tmp_path, runtime) is None
    with posted(tmp_path, address, runtime, lasting=True):
        assert found(tmp_path, runtime) is None


@pytest.mark.parametrize(
    ("bound", "reached"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),  # noqa: S104
        ("::", "::1"),
        ("10.1.2.3", "10.1.2.3"),
    ],
)
def test_a_server_is_reached_where_it_listens(bound: str, reached: str) -> None:
    assert loopback_of(bound) == reached


def test_services_of_one_command_are_called_without_tls_and_those_of_up_with_it(
    tmp_path: Path, address: str
) -> None:
    runtime = RuntimeSettings(store=str(tmp_path / "store"), tls_ca=tmp_path / "none.pem")
    with posted(tmp_path, address, runtime, lasting=False):
        assert found(tmp_path, runtime)
    with (
        posted(tmp_path, address, runtime, lasting=True),
        pytest.raises(ConfigurationError, match="DEMIURGE_TLS_CA"),
    ):
        found(tmp_path, runtime)


def test_up_needs_the_authority_of_its_certificate() -> None:
    with pytest.raises(ConfigurationError, match="DEMIURGE_TLS_CA"):
        can_call_itself(RuntimeSettings(tls_certificate=Path("own.pem")))
    can_call_itself(RuntimeSettings(tls_certificate=Path("own.pem"), tls_ca=Path("ca.pem")))
    can_call_itself(RuntimeSettings())


def test_an_authority_does_not_keep_a_command_from_its_own_services(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEMIURGE_HOME", str(tmp_path))
    monkeypatch.setenv("DEMIURGE_TLS_CA", str(tmp_path / "ca.pem"))
    with connect("gateway") as client:
        assert not client.pipeline.ListRuns(ListRunsRequest()).runs
    monkeypatch.setenv("DEMIURGE_SYNTH_ADDRESS", "music.example:1")
    with pytest.raises(ConfigurationError, match="DEMIURGE_QUERY_ADDRESS"), connect():
        pass
