import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from demiurge.gateway.v1 import gateway_service_pb2 as messages
from demiurge.gateway.v1.gateway_service_pb2_grpc import (
    PipelineServiceServicer,
    PipelineServiceStub,
    add_PipelineServiceServicer_to_server,
)

from services.cli import waiting
from services.cli.connection import connect
from services.errors import BusyError, StorageFullError, TimeExceededError, UnavailableError
from services.runtime.channels import open_blocking_channel
from services.runtime.settings import RuntimeSettings
from services.runtime.status import DETAILS_KEY, code_of, remote_errors, status_of


class Troubled(PipelineServiceServicer):
    """Never answers ListRuns; refuses GetRun with what is left of `refusals`.

    To CancelRun it answers as a proxy does that finds nobody behind it.
    """

    def __init__(self) -> None:
        self.refusals: list[Exception] = []
        self.stopped = threading.Event()

    def ListRuns(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802
        self.stopped.wait(60)
        return messages.ListRunsResponse()

    def GetRun(self, request: Any, context: Any) -> Any:  # noqa: N802
        if self.refusals:
            status = status_of(error := self.refusals.pop())
            context.set_trailing_metadata(((DETAILS_KEY, status.SerializeToString()),))
            context.abort(code_of(error), status.message)
        return messages.GetRunResponse(run=messages.Run(id=request.run_id))

    def CancelRun(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802
        context.set_trailing_metadata((("server", "a-proxy"), ("grpc-retry-pushback-ms", "-1")))
        context.abort(grpc.StatusCode.UNAVAILABLE, "no healthy upstream")


@contextmanager
def served(troubled: Troubled, said: list[str]) -> Iterator[PipelineServiceStub]:
    server = grpc.server(futures.ThreadPoolExecutor(2))
    add_PipelineServiceServicer_to_server(troubled, server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        with remote_errors(), open_blocking_channel(address, RuntimeSettings()) as channel:
            waits = waiting.Waiting("studio:50051", said.append)
            yield PipelineServiceStub(grpc.intercept_channel(channel, waits))
    finally:
        troubled.stopped.set()
        server.stop(0).wait()


def test_a_question_that_is_not_answered_names_who_was_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(waiting, "ANSWER_SECONDS", 0.5)
    with (
        pytest.raises(TimeExceededError, match=r"studio:50051 did not answer ListRuns within 0\.5"),
        served(Troubled(), []) as stub,
    ):
        stub.ListRuns(messages.ListRunsRequest())


def test_whoever_is_busy_is_asked_again_and_that_is_said_once() -> None:
    troubled, said = Troubled(), []
    troubled.refusals = [BusyError("all hands are full")] * 3
    with served(troubled, said) as stub:
        assert stub.GetRun(messages.GetRunRequest(run_id="run-1")).run.id == "run-1"
    assert said == ["waiting: all hands are full"]


def test_who_stays_busy_is_given_up_in_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "BUSY_SECONDS", 0.0)
    troubled = Troubled()
    troubled.refusals = [BusyError("all hands are full")] * 100
    with pytest.raises(BusyError, match="all hands are full"), served(troubled, []) as stub:
        stub.GetRun(messages.GetRunRequest(run_id="run-1"))


def test_a_full_disk_is_not_waited_for() -> None:
    troubled = Troubled()
    troubled.refusals = [StorageFullError("the disk is full")]
    with pytest.raises(StorageFullError, match="the disk is full"), served(troubled, []) as stub:
        stub.GetRun(messages.GetRunRequest(run_id="run-1"))


def test_nobody_at_an_address_is_told_with_what_to_do() -> None:
    waits = waiting.Waiting("studio:50051", print)
    with open_blocking_channel("127.0.0.1:9", RuntimeSettings()) as channel:
        stub = PipelineServiceStub(grpc.intercept_channel(channel, waits))
        with pytest.raises(
            UnavailableError, match=r"studio:50051 cannot be reached: .*see that it"
        ):
            stub.GetRun(messages.GetRunRequest(run_id="run-1"))


def test_whoever_is_away_behind_a_proxy_is_named_and_not_the_proxy() -> None:
    with (
        pytest.raises(UnavailableError, match=r"^studio:50051 answers, but gateway behind") as told,
        served(Troubled(), []) as stub,
    ):
        stub.CancelRun(messages.CancelRunRequest(run_id="run-1"))
    assert told.value.culprit == "gateway"
    assert "no healthy upstream; see that gateway runs" in told.value.message


def test_a_service_that_is_stopping_is_no_proxy_and_has_been_reached_without_tls() -> None:
    troubled = Troubled()
    troubled.refusals = [UnavailableError("stopping")] * 10
    with pytest.raises(UnavailableError, match="stopping") as told, served(troubled, []) as stub:
        stub.GetRun(messages.GetRunRequest(run_id="run-1"))
    assert "behind" not in told.value.message
    assert "TLS" not in told.value.message


@pytest.fixture
def speaks_tls(certificates: Path) -> Iterator[str]:
    """The address of a server that does."""
    server = grpc.server(futures.ThreadPoolExecutor(1))
    add_PipelineServiceServicer_to_server(Troubled(), server)
    pair = ((certificates / "own.key").read_bytes(), (certificates / "own.pem").read_bytes())
    credentials = grpc.ssl_server_credentials([pair])
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(0).wait()


@pytest.mark.parametrize("with_authority", [False, True])
def test_only_whoever_has_no_authority_is_told_of_tls(
    speaks_tls: str,
    certificates: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    with_authority: bool,
) -> None:
    monkeypatch.setenv("DEMIURGE_HOME", str(tmp_path))
    monkeypatch.setenv("DEMIURGE_GATEWAY_ADDRESS", "127.0.0.1:9" if with_authority else speaks_tls)
    if with_authority:
        monkeypatch.setenv("DEMIURGE_TLS_CA", str(certificates / "ca.pem"))

    with pytest.raises(UnavailableError, match="cannot be reached") as told:  # noqa: SIM117
        with connect("gateway") as client:
            client.pipeline.GetRun(messages.GetRunRequest(run_id="run-1"))

    hinted = "; or it speaks TLS: set DEMIURGE_TLS_CA" in told.value.message
    assert hinted is not with_authority
