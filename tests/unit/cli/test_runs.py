from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from demiurge.gateway.v1 import gateway_service_pb2 as messages
from demiurge.gateway.v1.gateway_service_pb2 import State
from demiurge.gateway.v1.gateway_service_pb2_grpc import (
    PipelineServiceServicer,
    add_PipelineServiceServicer_to_server,
)
from typer.testing import CliRunner

from services.cli.main import app
from services.errors import InvalidInputError, NotReadyError

RUNS = {
    "run-1": messages.Run(
        id="run-1", state=State.STATE_FAILED, failure=messages.Failure(reason="INTERRUPTED")
    ),
    "run-2": messages.Run(
        id="run-2", state=State.STATE_FAILED, failure=messages.Failure(reason="NOT_FOUND")
    ),
    "run-3": messages.Run(id="run-3", state=State.STATE_RUNNING),
    "run-4": messages.Run(id="run-4", state=State.STATE_CANCELLED),
}


class Gateway(PipelineServiceServicer):
    """Knows four runs, none of which has a piece."""

    def ListRuns(self, *_: Any) -> messages.ListRunsResponse:  # noqa: N802
        return messages.ListRunsResponse(runs=RUNS.values())

    def GetRun(self, request: messages.GetRunRequest, _: Any) -> messages.GetRunResponse:  # noqa: N802
        return messages.GetRunResponse(run=RUNS[request.run_id])


@pytest.fixture(autouse=True)
def _gateway(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    server = grpc.server(futures.ThreadPoolExecutor(2))
    add_PipelineServiceServicer_to_server(Gateway(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEMIURGE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DEMIURGE_GATEWAY_ADDRESS", f"127.0.0.1:{port}")
    yield
    server.stop(0).wait()


def test_an_interrupted_run_is_not_listed_as_one_that_failed() -> None:
    done = CliRunner().invoke(app, ["runs"])
    states = [line.split()[:2] for line in done.output.splitlines()[1:]]
    assert states == [
        ["run-1", "interrupted"],
        ["run-2", "failed"],
        ["run-3", "running"],
        ["run-4", "cancelled"],
    ]


@pytest.mark.parametrize(
    ("run_id", "told"),
    [
        ("run-1", "is interrupted, and has no piece: run it again, and it goes on"),
        ("run-2", "has failed, and has no piece: `demiurge runs show run-2` says more"),
        ("run-3", "is running, and has no piece: wait for it"),
        ("run-4", "is cancelled, and has no piece: run it again"),
    ],
)
def test_who_fetches_a_run_without_a_piece_hears_what_to_do(run_id: str, told: str) -> None:
    done = CliRunner().invoke(app, ["runs", "fetch", run_id])
    assert isinstance(done.exception, NotReadyError)
    assert f"run {run_id} {told}" in done.exception.message


def test_a_folder_that_takes_no_piece_is_told_of_first(tmp_path: Path) -> None:
    (tmp_path / "afile").write_text("kept")
    done = CliRunner().invoke(app, ["runs", "fetch", "run-1", "--out", "afile"])
    assert isinstance(done.exception, InvalidInputError)
    assert done.exception.message.startswith("--out: ")
