"""Services behind Envoy come and go, and hang on: nobody who calls notices."""

# ruff: noqa: ARG002, N802

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
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
from demiurge.playback.v1.playback_service_pb2 import RenderAudioRequest
from demiurge.playback.v1.playback_service_pb2_grpc import PlaybackServiceStub
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from services.errors import InvalidInputError
from services.runtime.channels import open_blocking_channel
from services.runtime.settings import RuntimeSettings
from services.runtime.status import remote_errors
from tests.deploy.envoy.conftest import http
from tests.deploy.envoy.names import Names
from tests.deploy.envoy.proxy import Proxy, running
from tests.deploy.envoy.replicas import HEALTH_PORT, PORT, host, served
from tests.e2e.processes import ready
from tests.e2e.workspace import Workspace, ended, wait_until

# Longer than the 15 s after which Envoy ends calls unless told otherwise.
SILENT_SECONDS = 16.5
START_SECONDS = 180.0


class Standstill(PipelineServiceServicer):
    """A gateway with one run, of which there is nothing new for a while."""

    def WatchRun(self, request: Any, context: Any) -> Iterator[messages.WatchRunResponse]:
        yield messages.WatchRunResponse(run=messages.Run(id=request.run_id))
        time.sleep(SILENT_SECONDS)
        yield messages.WatchRunResponse(run=messages.Run(id=request.run_id))

    def GetRun(self, request: Any, context: Any) -> messages.GetRunResponse:
        left = context.time_remaining()
        # gRPC's word for none is a deadline in the far future.
        return messages.GetRunResponse(run=messages.Run(id=f"{left:.0f}" if left < 1e6 else "none"))


@contextmanager
def standstill(place: str) -> Iterator[None]:
    """`Standstill` at that address, healthy."""
    checks = health.HealthServicer()
    checks.set("readiness", health_pb2.HealthCheckResponse.SERVING)
    server = grpc.server(ThreadPoolExecutor(8))
    add_PipelineServiceServicer_to_server(Standstill(), server)
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    for port in (PORT, HEALTH_PORT):
        server.add_insecure_port(f"{place}:{port}")
    server.start()
    try:
        yield
    finally:
        server.stop(0).wait()


@pytest.fixture(scope="module")
def own_names() -> Iterator[Names]:
    with Names() as server:
        yield server


@pytest.fixture(scope="module")
def proxy(own_names: Names, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    place = host(20)
    own_names.addresses["gateway"] = [place]
    with (
        standstill(place),
        running(tmp_path_factory.mktemp("replicas"), own_names.port) as started,
    ):
        yield started


@pytest.fixture(scope="module")
def watch(proxy: Proxy) -> "Iterator[Future[list[str]]]":
    """A run that is watched, by a client that pings every second, while other tests run."""

    def watched() -> list[str]:
        options = [
            ("grpc.keepalive_time_ms", 1000),
            ("grpc.http2.max_pings_without_data", 0),
        ]
        with grpc.insecure_channel(proxy.address, options) as channel:
            request = messages.WatchRunRequest(run_id="long")
            return [message.run.id for message in PipelineServiceStub(channel).WatchRun(request)]

    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(watched)


class Caller:
    """Somebody who renders nothing, again and again, over one long-lived channel."""

    def __init__(self, proxy: Proxy) -> None:
        self.answers = 0
        self.errors: list[Exception] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._call, args=(proxy,))

    def _call(self, proxy: Proxy) -> None:
        with open_blocking_channel(proxy.address, RuntimeSettings()) as channel:
            stub = PlaybackServiceStub(channel)
            while not self._stopped.is_set():
                try:
                    with remote_errors():
                        stub.RenderAudio(RenderAudioRequest())
                except InvalidInputError:
                    self.answers += 1
                except Exception as error:
                    self.errors.append(error)

    def __enter__(self) -> "Caller":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """After the call that is under way, nothing more is called."""
        self._stopped.set()
        self._thread.join()
        assert not self.errors

    def goes_on(self, answers: int = 20) -> None:
        """Returns after so many answers more."""
        wanted = self.answers + answers
        wait_until(lambda: self.answers >= wanted or bool(self.errors))
        assert not self.errors


def at(place: str) -> str:
    return f"{place}:{PORT}"


def shares(proxy: Proxy, since: int) -> Counter[str]:
    """Calls by who answered them, of those after the first `since`."""
    return Counter(
        call["upstream"] for call in proxy.calls()[since:] if "Playback" in call["method"]
    )


def test_replicas_share_the_calls_and_one_may_die_and_one_be_added(
    proxy: Proxy, own_names: Names, watch: object, tmp_path: Path
) -> None:
    mortal, stays, added = (host(number) for number in (21, 22, 23))
    settings = {
        "DEMIURGE_BIND_ADDRESS": mortal,
        "DEMIURGE_PORT": str(PORT),
        "DEMIURGE_HEALTH_PORT": str(HEALTH_PORT),
        "DEMIURGE_LOG_LEVEL": "warning",
    }
    process = Workspace(tmp_path, settings).start("serve", "playback")
    with ExitStack() as stack:
        stack.callback(ended, process)
        stack.callback(process.kill)
        stack.enter_context(served("playback", stays, tmp_path))
        wait_until(lambda: ready(f"{mortal}:{HEALTH_PORT}"), START_SECONDS)
        own_names.addresses["playback"] = [mortal, stays]
        caller = stack.enter_context(Caller(proxy))
        caller.goes_on()
        wait_until(lambda: len(shares(proxy, -10)) > 1)
        since = len(proxy.calls())
        caller.goes_on(40)
        shared = shares(proxy, since)
        assert shared.keys() == {at(mortal), at(stays)}
        assert min(shared.values()) >= sum(shared.values()) / 4
        process.kill()
        stack.enter_context(served("playback", added, tmp_path))
        own_names.addresses["playback"] = [stays, added]
        wait_until(lambda: shares(proxy, -10).keys() == {at(stays), at(added)})
        caller.goes_on()


def test_a_service_that_is_started_anew_is_waited_for(
    proxy: Proxy, own_names: Names, watch: object, tmp_path: Path
) -> None:
    place = host(30)
    own_names.addresses["playback"] = [place]
    path = "/demiurge.playback.v1.PlaybackService/RenderAudio"
    with ExitStack() as first:
        first.enter_context(served("playback", place, tmp_path))
        with Caller(proxy) as caller:
            caller.goes_on()
            first.close()
            # As a name server does while nobody of that name runs.
            own_names.addresses["playback"] = []
            answers = caller.answers
            time.sleep(3)
            assert caller.answers <= answers + 1
            own_names.addresses["playback"] = [place]
            with served("playback", place, tmp_path):
                caller.goes_on()
                caller.stop()
    tries = (call["attempts"] for call in proxy.calls() if call["path"] == path)
    assert max(tries) > 1


def test_patience_ends_where_the_callers_does(proxy: Proxy, watch: object) -> None:
    with grpc.insecure_channel(proxy.address) as channel:
        path = "/demiurge.synth.v1.SynthService/ListModels"
        with pytest.raises(grpc.RpcError) as raised:
            channel.unary_unary(path)(b"", timeout=0.5)
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_the_callers_deadline_reaches_the_service(proxy: Proxy, watch: object) -> None:
    with grpc.insecure_channel(proxy.address) as channel:
        stub = PipelineServiceStub(channel)
        request = messages.GetRunRequest(run_id="any")
        assert stub.GetRun(request, timeout=1000).run.id in {"1000", "999", "998"}
        assert stub.GetRun(request).run.id == "none"
    answer = http(proxy, "GET", "/v1/runs/any", None, {"grpc-timeout": "1000S"})
    assert b'"id":"1000"' in answer.body or b'"id":"999"' in answer.body


def test_a_watch_that_stands_still_and_pings_live(proxy: Proxy, watch: "Future[list[str]]") -> None:
    assert watch.result(60) == ["long", "long"]
