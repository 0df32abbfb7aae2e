"""A server in a process of its own, told to stop."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest
from demiurge.query.v1 import query_service_pb2 as query
from demiurge.query.v1 import query_service_pb2_grpc as query_grpc

from services.runtime.channels import open_blocking_channel
from tests.contract.runtime.conftest import SETTINGS, get
from tests.e2e.workspace import COMMAND

PROGRAM = """
import asyncio
from demiurge.query.v1 import query_service_pb2, query_service_pb2_grpc
from services.runtime.logs import configure_logging
from services.runtime.metrics import Metrics
from services.runtime.security import server_credentials
from services.runtime.server import Registration, serve
from services.runtime.settings import RuntimeSettings

class Slow(query_service_pb2_grpc.QueryServiceServicer):
    async def GetCollection(self, request, context):
        print("entered", flush=True)
        await asyncio.sleep(0.5)
        return query_service_pb2.GetCollectionResponse()

async def warm_up():
    print("warming up", flush=True)
    await asyncio.sleep(WARM_UP_SECONDS)

settings = RuntimeSettings(port=0)
configure_logging(settings)
registration = Registration("q", lambda server:
    query_service_pb2_grpc.add_QueryServiceServicer_to_server(Slow(), server), warm_up)
asyncio.run(serve([registration], settings, Metrics()))
print("stopped", flush=True)
"""


@contextmanager
def program(warm_up_seconds: float) -> Iterator[tuple[subprocess.Popen[str], IO[str], IO[str]]]:
    """A server in a process of its own, warming up, with its stdout and stderr."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM.replace("WARM_UP_SECONDS", str(warm_up_seconds))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": ":".join(sys.path)},
    ) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline() == "warming up\n"
        yield process, process.stdout, process.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_call_in_flight_finish(number: signal.Signals) -> None:
    with program(0) as (process, stdout, stderr):
        port = json.loads(stderr.readline())["port"]
        with open_blocking_channel(f"127.0.0.1:{port}", SETTINGS) as channel:
            answer = query_grpc.QueryServiceStub(channel).GetCollection.future(get("x"))
            assert stdout.readline() == "entered\n"
            process.send_signal(number)
            assert answer.result(timeout=10) == query.GetCollectionResponse()
        assert process.wait(10) == 0
        assert stdout.read() == "stopped\n"


def test_a_signal_while_warming_up_ends_at_once() -> None:
    with program(600) as (process, stdout, _):
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert stdout.read() == "stopped\n"


def test_a_signal_while_libraries_load_ends_at_once(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("import time\nprint('loading', flush=True)\ntime.sleep(600)")
    environment = os.environ | {"DEMIURGE_HOME": str(tmp_path), "PYTHONPATH": str(tmp_path)}
    with subprocess.Popen(
        [COMMAND, "serve", "synth"], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "loading\n"
        process.send_signal(signal.SIGTERM)
        # By the default action, to which a container's first process is deaf, it would be -15.
        assert process.wait(10) == 0
