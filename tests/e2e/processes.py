"""A process for each service over one store, to be killed, frozen and started anew."""

# ruff: noqa: PLC0415

import signal
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.runtime.settings import NOUNS
from tests.e2e.workspace import Workspace, wait_until

if TYPE_CHECKING:
    from demiurge.gateway.v1.gateway_service_pb2 import Run, RunSpec

STAGES = ("generate", "extract", "index", "predict", "match", "render")
WORKS_IN = {
    "generate": "synth",
    "extract": "descriptor",
    "index": "query",
    "predict": "predictor",
    "match": "query",
    "render": "playback",
}
SERVING = health_pb2.HealthCheckResponse.SERVING
# A run that waited for its patience's end has some more to do.
LONGEST_SECONDS = 180.0


class Processes:
    """`demiurge serve` for each noun; `settings` are environment variables of all of them."""

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        self.folder = folder
        self.addresses = {noun: f"127.0.0.1:{free_port()}" for noun in NOUNS}
        self._settings = dict(settings)
        self._processes: dict[str, subprocess.Popen[str]] = {}

    def start(self, noun: str, **settings: str) -> None:
        """Starts a service at its address, with some settings more."""
        own = {"DEMIURGE_PORT": self.addresses[noun].rpartition(":")[2]}
        own |= {"DEMIURGE_LOG_LEVEL": "warning"}
        if noun == "gateway":
            peers = [each for each in NOUNS if each != noun]
            own |= {f"DEMIURGE_{each.upper()}_ADDRESS": self.addresses[each] for each in peers}
            own |= {"DEMIURGE_GATEWAY_LEASE_SECONDS": "1"}
        with (self.folder / f"{noun}.log").open("a") as log:
            place = Workspace(self.folder, self._settings | own | settings)
            self._processes[noun] = place.start("serve", noun, stderr=log)

    def wait_for(self, noun: str) -> None:
        """Returns once the service is ready."""
        process = self._processes[noun]
        wait_until(lambda: ready(self.addresses[noun]) or process.poll() is not None)
        assert process.poll() is None, (self.folder / f"{noun}.log").read_text()

    def restart(self, noun: str, **settings: str) -> None:
        """Kills a service, and starts it with some settings more; returns once it is ready."""
        self.kill(noun)
        self.start(noun, **settings)
        self.wait_for(noun)

    def freeze(self, noun: str) -> None:
        """Calls are taken from here on, and not answered."""
        self._processes[noun].send_signal(signal.SIGSTOP)

    def thaw(self, noun: str) -> None:
        """Lets it go on."""
        self._processes[noun].send_signal(signal.SIGCONT)

    def kill(self, noun: str) -> None:
        """SIGKILL."""
        process = self._processes.pop(noun)
        process.kill()
        process.communicate()

    def close(self) -> None:
        """Kills all."""
        for noun in list(self._processes):
            self.kill(noun)

    def create(self, wanted: "RunSpec") -> "Run":
        """CreateRun."""
        from demiurge.gateway.v1.gateway_service_pb2 import CreateRunRequest

        with self._gateway() as gateway:
            run: Run = gateway.CreateRun(CreateRunRequest(spec=wanted), timeout=60).run
            return run

    def look(self, run_id: str) -> "Run":
        """The run as the gateway shows it."""
        from demiurge.gateway.v1.gateway_service_pb2 import GetRunRequest

        with self._gateway() as gateway:
            run: Run = gateway.GetRun(GetRunRequest(run_id=run_id), timeout=60).run
            return run

    def watched(self, run_id: str, then: Callable[[], None]) -> "Iterator[Run]":
        """The run until it ends; `then` happens once the first word of it has come."""
        from demiurge.gateway.v1.gateway_service_pb2 import WatchRunRequest

        with self._gateway() as gateway:
            for number, message in enumerate(gateway.WatchRun(WatchRunRequest(run_id=run_id))):
                if number == 0:
                    then()
                yield message.run

    def going(self, run_id: str) -> bool:
        """Whether it is still at work."""
        from demiurge.gateway.v1.gateway_service_pb2 import State

        return self.look(run_id).state in {State.STATE_PENDING, State.STATE_RUNNING}

    def ended(self, run: "Run") -> "Run":
        """The run, once it has ended."""
        wait_until(lambda: not self.going(run.id), LONGEST_SECONDS)
        return self.look(run.id)

    def held(self, wanted: "RunSpec", stage: str) -> "Run":
        """The run, at work in that stage, whose service is frozen; generating has to last."""
        noun = WORKS_IN[stage]
        early = stage in {"extract", "index", "render"}
        if early:
            self.freeze(noun)
        run = self.create(wanted)
        if stage == "match":
            self.freeze("predictor")
            self._reaches(run, "predict")
        if not early:
            self.freeze(noun)
        if stage == "match":
            self.thaw("predictor")
        self._reaches(run, stage)
        return run

    def _reaches(self, run: "Run", stage: str) -> None:
        from demiurge.gateway.v1.gateway_service_pb2 import State

        number = STAGES.index(stage)
        wait_until(lambda: self.look(run.id).stages[number].state == State.STATE_RUNNING)

    @contextmanager
    def _gateway(self) -> Iterator[Any]:
        """A connection for each look, since the gateway may have died between two."""
        from demiurge.gateway.v1.gateway_service_pb2_grpc import PipelineServiceStub

        from services.runtime.channels import open_blocking_channel
        from services.runtime.settings import RuntimeSettings
        from services.runtime.status import remote_errors

        address = self.addresses["gateway"]
        with remote_errors(), open_blocking_channel(address, RuntimeSettings()) as channel:
            yield PipelineServiceStub(channel)


@contextmanager
def running(folder: Path, settings: Mapping[str, str]) -> Iterator[Processes]:
    """All services, ready; killed afterwards."""
    processes = Processes(folder, settings)
    try:
        for noun in NOUNS:
            processes.start(noun)
        for noun in NOUNS:
            processes.wait_for(noun)
        yield processes
    finally:
        processes.close()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def ready(address: str) -> bool:
    """Whether the service there says that it is."""
    with grpc.insecure_channel(address) as channel:
        request = health_pb2.HealthCheckRequest(service="readiness")
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=2)
        except grpc.RpcError:
            return False
        return bool(answer.status == SERVING)
