"""The example predictor as a process of its own: held to the contract, drained, used by a run."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest
from demiurge.gateway.v1.gateway_service_pb2 import State
from demiurge.predictor.v1 import predictor_service_pb2 as pb
from demiurge.predictor.v1.predictor_service_pb2_grpc import PredictorServiceStub
from typer.testing import CliRunner

from services.audio.track import DescriptorTrack
from services.cli.main import app
from services.descriptor.mfcc import FEATURE_NAMES
from services.runtime.messages import track_to_message
from tests.conftest import Stack, spec
from tests.e2e.processes import free_port, ready
from tests.e2e.workspace import wait_until

SERVER = Path(__file__).parents[2] / "examples" / "predictor" / "server.py"
WINDOW = 40
AT_ONCE, MOST_STEPS = 8, 20000


@contextmanager
def example() -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """The server, ready, and its address; killed afterwards if it is still there."""
    address = f"127.0.0.1:{free_port()}"
    environment = os.environ | {"ADDRESS": address, "WINDOW_FRAMES": str(WINDOW)}
    process = subprocess.Popen([sys.executable, str(SERVER)], env=environment)
    try:
        wait_until(lambda: ready(address) or process.poll() is not None)
        assert process.poll() is None
        yield address, process
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with example() as (address, _):
        yield address


def test_the_example_keeps_to_the_contract(address: str) -> None:
    done = CliRunner().invoke(
        app, ["conformance", "predictor", address, "--free-within", "30"], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    skipped = {line.split()[1] for line in done.output.splitlines() if line.startswith("skipped")}
    assert skipped == {"list-pages", "temperature-refused"}


def test_the_example_goes_on_with_frames_of_its_window_and_stays_with_none(address: str) -> None:
    request = wanted(steps=2000)
    window = np.frombuffer(request.window.values, "<f4").reshape(WINDOW, -1)
    with grpc.insecure_channel(address) as channel:
        [track] = PredictorServiceStub(channel).PredictDescriptors(request, timeout=60).tracks
    values = np.frombuffer(track.values, "<f4").reshape(track.frame_count, -1)
    places = [int(np.flatnonzero((window == frame).all(1))[0]) for frame in values]
    assert len({*places[-400:]}) > WINDOW / 2


def test_the_example_finishes_what_is_under_way_when_it_is_told_to_stop() -> None:
    with example() as (address, process), grpc.insecure_channel(address) as channel:
        predict = PredictorServiceStub(channel).PredictDescriptors
        calls = [predict.future(wanted(MOST_STEPS), timeout=60) for _ in range(AT_ONCE - 1)]
        predict(wanted(1), timeout=60)  # so all before it have come
        process.send_signal(signal.SIGTERM)
        frames = [sum(track.frame_count for track in call.result().tracks) for call in calls]
        assert frames == [MOST_STEPS] * len(calls)
        assert process.wait(60) == 0


def test_a_run_goes_through_the_example(shared: Stack, address: str) -> None:
    def made(temperature: float, seed: int) -> str:
        asked = spec(predictor="recurrence", database="material", frames=30, seed=seed)
        asked.prediction.predictor_address = address
        asked.prediction.temperature = temperature
        run = shared.made(asked)
        assert run.state == State.STATE_SUCCEEDED, run.failure.message
        assert run.result.sample_count == 30 * 1024
        return run.result.audio.sha256

    assert made(0.0, 1) == made(0.0, 2)
    assert made(1.0, 1) != made(1.0, 2)


def wanted(steps: int) -> pb.PredictDescriptorsRequest:
    values = np.random.default_rng(5).normal(size=(WINDOW, len(FEATURE_NAMES)))
    track = DescriptorTrack(FEATURE_NAMES, values.astype(np.float32), 44100, 1024)
    return pb.PredictDescriptorsRequest(
        predictor_id="recurrence", window=track_to_message(track), steps=steps
    )
