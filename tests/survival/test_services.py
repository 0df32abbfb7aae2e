"""Each service of a cluster is killed in the midst of a run; the run waits for it, and ends."""

# ruff: noqa: PLC0415

import hashlib
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from services.runtime.settings import NOUNS
from tests.conftest import OpenStack, Stack, sound, spec
from tests.e2e.test_cluster import free_port, ready
from tests.e2e.workspace import Workspace, wait_until
from tests.survival.conftest import Tally

if TYPE_CHECKING:
    from demiurge.gateway.v1.gateway_service_pb2 import Run, RunSpec

pytestmark = pytest.mark.slow

# The stage of a run in which each service works.
STAGES = {"synth": 0, "descriptor": 1, "query": 2, "predictor": 3, "playback": 5}
AWAY_SECONDS = 2.0


class Cluster:
    """A process for each service over one folder, to be killed, frozen and started anew."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.store = folder / "home" / "store"
        self.addresses = {noun: f"127.0.0.1:{free_port()}" for noun in NOUNS}
        self._processes: dict[str, subprocess.Popen[str]] = {}

    def start(self, noun: str) -> None:
        """Starts a service at its address."""
        own = {
            "DEMIURGE_PORT": self.addresses[noun].rpartition(":")[2],
            "DEMIURGE_LOG_LEVEL": "warning",
        }
        if noun == "gateway":
            own |= {f"DEMIURGE_{each.upper()}_ADDRESS": self.addresses[each] for each in STAGES}
            own |= {"DEMIURGE_GATEWAY_LEASE_SECONDS": "1", "DEMIURGE_GATEWAY_RESUME_RUNS": "true"}
        with (self._folder / f"{noun}.log").open("a") as log:
            place = Workspace(self._folder, own)
            self._processes[noun] = place.start("serve", noun, stderr=log)

    def wait_for(self, noun: str) -> None:
        """Returns once the service is ready."""
        process = self._processes[noun]
        wait_until(lambda: ready(self.addresses[noun]) or process.poll() is not None)
        assert process.poll() is None, (self._folder / f"{noun}.log").read_text()

    def freeze(self, noun: str) -> None:
        """Calls are taken from here on, and not answered."""
        self._processes[noun].send_signal(signal.SIGSTOP)

    def thaw(self, noun: str) -> None:
        """Lets it go on."""
        self._processes[noun].send_signal(signal.SIGCONT)

    def kill(self, noun: str) -> None:
        """SIGKILL."""
        process = self._processes[noun]
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL

    def close(self) -> None:
        """Kills all."""
        for noun in self._processes:
            self.kill(noun)


@pytest.fixture(scope="module")
def prediction() -> dict[str, bytes]:
    return {f"{seed}.wav": sound(1.0, seed) for seed in (1, 2)}


@pytest.fixture(scope="module")
def cluster(
    tmp_path_factory: pytest.TempPathFactory, trained_models: Path, prediction: dict[str, bytes]
) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    opened = Cluster(folder)
    shutil.copytree(trained_models, opened.store)
    (opened.store / "audio" / "prediction").mkdir(parents=True)
    for name, content in prediction.items():
        (opened.store / "audio" / "prediction" / name).write_bytes(content)
    try:
        for noun in NOUNS:
            opened.start(noun)
        for noun in NOUNS:
            opened.wait_for(noun)
        yield opened
    finally:
        opened.close()


@pytest.fixture(scope="module")
def embedded_stack(
    open_stack: OpenStack,
    tmp_path_factory: pytest.TempPathFactory,
    prediction: dict[str, bytes],
) -> Iterator[Stack]:
    """What the cluster is compared with."""
    with open_stack(tmp_path_factory.mktemp("embedded")) as opened:
        for name, content in prediction.items():
            opened.upload("prediction", name, content)
        yield opened


def wanted_run(noun: str) -> "RunSpec":
    """A run for the attack on one service: another than for any other."""
    return spec(frames=20, files=12, seconds=0.5, seed=100 + NOUNS.index(noun))


def create(cluster: Cluster, wanted: "RunSpec") -> "Run":
    from demiurge.gateway.v1.gateway_service_pb2 import CreateRunRequest
    from demiurge.gateway.v1.gateway_service_pb2_grpc import PipelineServiceStub

    from services.runtime.channels import open_blocking_channel
    from services.runtime.settings import RuntimeSettings

    with open_blocking_channel(cluster.addresses["gateway"], RuntimeSettings()) as channel:
        return PipelineServiceStub(channel).CreateRun(CreateRunRequest(spec=wanted)).run


def look(cluster: Cluster, run_id: str) -> "Run":
    """The run as the gateway shows it; a new connection each time, for it may have died."""
    from demiurge.gateway.v1.gateway_service_pb2 import GetRunRequest
    from demiurge.gateway.v1.gateway_service_pb2_grpc import PipelineServiceStub

    from services.runtime.channels import open_blocking_channel
    from services.runtime.settings import RuntimeSettings

    with open_blocking_channel(cluster.addresses["gateway"], RuntimeSettings()) as channel:
        return PipelineServiceStub(channel).GetRun(GetRunRequest(run_id=run_id)).run


def made(run: "Run", store: Path) -> dict[str, str]:
    """SHA-256 of what a run that succeeded has left there."""
    from demiurge.gateway.v1.gateway_service_pb2 import State

    assert run.state == State.STATE_SUCCEEDED, run
    result = run.result
    return {
        each.key: hashlib.sha256((store / each.key).read_bytes()).hexdigest()
        for each in (result.audio, result.edit_list, result.spectrogram)
    }


def hung(cluster: Cluster, noun: str) -> str:
    """A run that is at work and hangs at a service, which was frozen: its id."""
    from demiurge.gateway.v1.gateway_service_pb2 import State

    run = create(cluster, wanted_run(noun))
    served = noun if noun in STAGES else "descriptor"
    cluster.freeze(served)
    wait_until(lambda: look(cluster, run.id).stages[STAGES[served]].state == State.STATE_RUNNING)
    return run.id


def ends(cluster: Cluster, run_id: str) -> "Run":
    from demiurge.gateway.v1.gateway_service_pb2 import State

    going = {State.STATE_PENDING, State.STATE_RUNNING}
    wait_until(lambda: look(cluster, run_id).state not in going)
    return look(cluster, run_id)


@pytest.mark.parametrize("noun", STAGES)
def test_a_run_rides_out_the_death_of_a_service(
    cluster: Cluster, embedded_stack: Stack, noun: str, tally: Tally
) -> None:
    run_id = hung(cluster, noun)
    cluster.kill(noun)
    time.sleep(AWAY_SECONDS)
    cluster.start(noun)
    run = ends(cluster, run_id)
    undisturbed = embedded_stack.made(wanted_run(noun))
    assert made(run, cluster.store) == made(undisturbed, embedded_stack.folder / "store")
    tally.add(f"kill -9 of {noun} while the run waits for it, started again", "same bytes")


def test_a_run_goes_on_by_itself_after_the_death_of_its_gateway(
    cluster: Cluster, embedded_stack: Stack, tally: Tally
) -> None:
    run_id = hung(cluster, "gateway")
    cluster.kill("gateway")
    cluster.thaw("descriptor")
    cluster.start("gateway")
    cluster.wait_for("gateway")
    run = ends(cluster, run_id)
    undisturbed = embedded_stack.made(wanted_run("gateway"))
    assert made(run, cluster.store) == made(undisturbed, embedded_stack.folder / "store")
    tally.add("kill -9 of the gateway at work, started again", "same bytes, by itself")
