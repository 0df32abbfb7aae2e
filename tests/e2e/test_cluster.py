"""The engineer's way: a process for each service, and a run through the gateway."""

import hashlib
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.runtime.settings import NOUNS
from tests.conftest import MELGAN, PREDICTOR, UNAGAN, OpenStack, spec
from tests.e2e.workspace import Workspace, furnish, wait_until

SERVING = health_pb2.HealthCheckResponse.SERVING
PEERS = [noun for noun in NOUNS if noun != "gateway"]


@dataclass(frozen=True)
class Cluster:
    """Processes and addresses by noun; `client` is where a composer works."""

    client: Workspace
    processes: "dict[str, subprocess.Popen[str]]"
    addresses: dict[str, str]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, trained_models: Path) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    shutil.copytree(trained_models, folder / "home" / "store")
    work = furnish(folder)
    addresses = {noun: f"127.0.0.1:{free_port()}" for noun in NOUNS}
    settings = {f"DEMIURGE_{noun.upper()}_ADDRESS": addresses[noun] for noun in NOUNS}
    processes = {}
    try:
        for noun in NOUNS:
            own = {"DEMIURGE_PORT": addresses[noun].rpartition(":")[2]}
            if noun == "gateway":
                own |= {name: settings[name] for name in settings if "GATEWAY" not in name}
            with (folder / f"{noun}.log").open("w") as log:
                processes[noun] = work.given(**own).start("serve", noun, stderr=log)
        for noun, process in processes.items():
            wait_until(lambda: ready(addresses[noun]) or process.poll() is not None)  # noqa: B023
            assert process.poll() is None, (folder / f"{noun}.log").read_text()
        # Its home is empty: nothing but addresses leads to the services.
        client = Workspace(folder, settings | {"DEMIURGE_HOME": str(folder / "elsewhere")})
        yield Cluster(client, processes, addresses)
    finally:
        for process in processes.values():
            process.kill()
            process.communicate()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def ready(address: str, service: str = "readiness") -> bool:
    with grpc.insecure_channel(address) as channel:
        request = health_pb2.HealthCheckRequest(service=service)
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=2)
        except grpc.RpcError:
            return False
        return bool(answer.status == SERVING)


def test_each_process_tells_that_it_lives_and_that_its_service_is_ready(cluster: Cluster) -> None:
    for noun, address in cluster.addresses.items():
        kind = "PipelineService" if noun == "gateway" else f"{noun.title()}Service"
        for service in ("", "liveness", f"demiurge.{noun}.v1.{kind}"):
            assert ready(address, service)


def test_a_run_over_the_cluster_makes_the_same_bytes_as_embedded_services(
    cluster: Cluster, open_stack: OpenStack, tmp_path: Path
) -> None:
    cluster.client.output(
        *("run", "--prediction", "prediction", "--duration", "0.7", "--files", "3", "--seed", "3"),
        *("--file-duration", "0.5", "--scaling", "none", "--out", "far"),
        *("--unagan", UNAGAN, "--melgan", MELGAN, "--predictor", PREDICTOR),
    )
    piece = (cluster.client.folder / "far" / "piece.wav").read_bytes()
    with open_stack(tmp_path) as stack:
        for path in (cluster.client.folder / "prediction").iterdir():
            stack.upload("prediction", path.name, path.read_bytes())
        wanted = spec(frames=31, files=3, seconds=0.5, seed=3)
        assert digest(stack.piece(wanted)) == digest(piece)
    assert not (cluster.client.folder / "elsewhere" / "store").exists()


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_lists_come_over_the_cluster(cluster: Cluster) -> None:
    assert PREDICTOR in cluster.client.output("models")


def test_a_gateway_without_the_others_addresses_names_the_variable(tmp_path: Path) -> None:
    place = Workspace(tmp_path, {"DEMIURGE_SYNTH_ADDRESS": "127.0.0.1:1"})
    assert "DEMIURGE_DESCRIPTOR_ADDRESS" in place.refusal("serve", "gateway")


def test_a_service_that_is_not_there_is_told_as_such(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    said = Workspace(tmp_path, {"DEMIURGE_GATEWAY_ADDRESS": address}).refusal("runs")
    assert address in said


def test_sigterm_ends_each_process_in_peace(cluster: Cluster) -> None:
    for process in cluster.processes.values():
        process.send_signal(signal.SIGTERM)
    assert [process.wait(30) for process in cluster.processes.values()] == [0] * len(NOUNS)
