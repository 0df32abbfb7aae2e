"""Ctrl-C at any moment: one calm line, nothing half-written, and the same command completes."""

import hashlib
import shutil
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
import soundfile
from demiurge.gateway.v1 import gateway_service_pb2 as messages
from demiurge.gateway.v1.gateway_service_pb2_grpc import (
    PipelineServiceServicer,
    add_PipelineServiceServicer_to_server,
)

from tests.conftest import MELGAN, PREDICTOR, UNAGAN
from tests.e2e.workspace import Workspace, ended, furnish, interrupted, wait_until

CALM = "demiurge: stopped; what was finished is kept"
RUN = (
    *("run", "--prediction", "prediction", "--duration", "0.5", "--files", "12"),
    *("--file-duration", "1.5", "--unagan", UNAGAN, "--melgan", MELGAN, "--predictor", PREDICTOR),
)


@pytest.fixture
def work(tmp_path: Path, trained_models: Path) -> Workspace:
    shutil.copytree(trained_models, tmp_path / "home" / "store")
    return furnish(tmp_path)


def assert_calm(place: Workspace, done: Any, remains: Path | None = None) -> None:
    assert done.returncode == 130, done.stderr
    assert done.stderr.splitlines()[-1] == CALM
    assert done.stderr.count("demiurge:") == 1
    assert "Traceback" not in done.stderr
    assert place.leftovers() == ([remains] if remains else [])
    assert not place.notice.exists()


@pytest.mark.slow
def test_a_training_ends_and_the_same_order_goes_on(work: Workspace) -> None:
    order = ("train", "predictor", "--recorded", "prediction", "--steps", "40")
    assert_calm(work, interrupted(work.start(*order), "training predictor: 0 of 40"))
    assert "goes on after step" in work.run(*order).stderr


def test_a_training_within_a_run_ends_too(work: Workspace) -> None:
    call = ("run", "--recorded", "recorded", "--direct", "--prediction", "prediction")
    assert_calm(work, interrupted(work.start(*call), "training predictor: 0 of"))


def test_a_run_is_cancelled_and_the_same_call_resumes_it(work: Workspace) -> None:
    first = interrupted(work.start(*RUN), "generate: 0 of 12")
    assert_calm(work, first)
    generated = {path.name for path in (work.home / "store").rglob("seed-*.wav")}
    assert "cancelled" in work.output("runs")
    work.output(*RUN)
    assert soundfile.info(str(work.folder / "piece" / "piece.wav")).frames == 22 * 1024
    assert len(generated) < 12


def test_services_that_are_just_starting_are_stopped(work: Workspace) -> None:
    process = work.start(*RUN)
    wait_until((work.home / "query" / "catalog.sqlite").exists)
    process.send_signal(signal.SIGINT)
    assert_calm(work, ended(process))


class Slow(PipelineServiceServicer):
    """A gateway whose downloads stop halfway, until `hurry` is set."""

    content = b"sound" * 20_000
    sha256 = hashlib.sha256(content).hexdigest()

    def __init__(self) -> None:
        self.offsets: list[int] = []
        self.halfway = threading.Event()
        self.hurry = threading.Event()

    def GetRun(  # noqa: N802
        self,
        request: messages.GetRunRequest,
        context: Any,  # noqa: ARG002
    ) -> messages.GetRunResponse:
        run = messages.Run(id=request.run_id)
        for reference, name in (
            (run.result.audio, "piece.wav"),
            (run.result.edit_list, "edit_list.json"),
            (run.result.spectrogram, "spectrogram.png"),
        ):
            reference.key, reference.sha256 = f"renders/x/{name}", self.sha256
            reference.size_bytes = len(self.content)
        run.result.sample_rate_hertz = 44_100
        return messages.GetRunResponse(run=run)

    def DownloadAudio(  # noqa: N802
        self, request: messages.DownloadAudioRequest, context: Any
    ) -> Iterator[messages.DownloadAudioResponse]:
        assert request.sha256 == self.sha256
        self.offsets.append(request.offset_bytes)
        rest = self.content[request.offset_bytes :]
        yield messages.DownloadAudioResponse(data=rest[:1000])
        self.halfway.set()
        stopped = threading.Event()
        context.add_callback(stopped.set)
        while not (self.hurry.is_set() or stopped.wait(0.05)):
            pass
        yield messages.DownloadAudioResponse(data=rest[1000:])


def test_a_download_that_was_stopped_goes_on_from_what_arrived(tmp_path: Path) -> None:
    slow = Slow()
    server = grpc.server(ThreadPoolExecutor(max_workers=4))
    add_PipelineServiceServicer_to_server(slow, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        place = Workspace(tmp_path, {"DEMIURGE_GATEWAY_ADDRESS": f"127.0.0.1:{port}"})
        process = place.start("runs", "fetch", "run-1")
        assert slow.halfway.wait(30)
        remains = tmp_path / "piece" / f".piece.wav.{slow.sha256[:8]}.part"
        wait_until(lambda: remains.exists() and remains.stat().st_size == 1000)
        process.send_signal(signal.SIGINT)
        assert_calm(place, ended(process), remains)
        assert list(remains.parent.iterdir()) == [remains]
        slow.hurry.set()
        place.output("runs", "fetch", "run-1")
        assert slow.offsets == [0, 1000, 0, 0]
        assert not place.leftovers()
        assert (tmp_path / "piece" / "piece.wav").read_bytes() == slow.content
    finally:
        server.stop(0).wait()
