"""The stack with deploy/compose/tls.yml: without its authority's certificates, nobody gets in."""

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.conftest import OpenContainers
from tests.deploy.stack import COMPOSE, ROOT, Stack

pytestmark = [pytest.mark.containers, pytest.mark.slow]
CORPUS = ROOT / "examples" / "corpus" / "prediction"
MODELS = ("--unagan", "singer", "--melgan", "voice", "--predictor", "follower")
SIZE = ("--files", "3", "--file-duration", "1", "--duration", "2")
# From inside, where Envoy cannot help: with its own certificate, and as one without.
CALL = """
import sys, grpc
from pathlib import Path
from grpc_health.v1 import health_pb2, health_pb2_grpc
folder = Path("/run/secrets/tls")
read = lambda name: (folder / name).read_bytes()
authority, key, own = read("ca.crt"), read("tls.key"), read("tls.crt")
with_own = grpc.ssl_channel_credentials(authority, key, own)
channels = {
    "certificate": grpc.secure_channel("synth:50051", with_own),
    "none": grpc.secure_channel("synth:50051", grpc.ssl_channel_credentials(authority)),
    "plain": grpc.insecure_channel("synth:50051"),
}
for name, channel in channels.items():
    try:
        stub = health_pb2_grpc.HealthStub(channel)
        stub.Check(health_pb2.HealthCheckRequest(), timeout=10)
        print(name)
    except grpc.RpcError as error:
        print(name, error.code().name)
"""


@pytest.fixture(scope="module")
def tls(open_containers: OpenContainers) -> Iterator[Stack]:
    with open_containers(overlays=("tls", "seaweedfs", "tests")) as stack:
        stack.import_models()
        yield stack


def test_a_piece_is_made_over_tls(tls: Stack) -> None:
    digests = set()
    for name in ("one", "other"):
        folder = tls.folder / name
        tls.demiurge("run", *MODELS, *SIZE, "--prediction", str(CORPUS), "--out", str(folder))
        digests.add(hashlib.sha256((folder / "piece.wav").read_bytes()).hexdigest())
    assert len(digests) == 1


@pytest.fixture(scope="module")
def strangers(tls: Stack) -> Path:
    """Certificates of another authority, for the same names."""
    folder = tls.folder / "strangers"
    command = [str(COMPOSE / "make-certificates.sh"), str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "client"


def test_plain_text_is_refused(tls: Stack) -> None:
    plain = dict.fromkeys(("DEMIURGE_TLS_CA", "DEMIURGE_TLS_CERTIFICATE", "DEMIURGE_TLS_KEY"), "")
    assert tls.demiurge("models", settings=plain, check=False).returncode == 1


def test_a_client_with_the_certificate_of_another_authority_is_refused(
    tls: Stack, strangers: Path
) -> None:
    wrong = {
        "DEMIURGE_TLS_CERTIFICATE": str(strangers / "tls.crt"),
        "DEMIURGE_TLS_KEY": str(strangers / "tls.key"),
    }
    assert tls.demiurge("models", settings=wrong, check=False).returncode == 1


def test_a_client_does_not_trust_another_authority(tls: Stack, strangers: Path) -> None:
    wrong = {"DEMIURGE_TLS_CA": str(strangers / "ca.crt")}
    assert tls.demiurge("models", settings=wrong, check=False).returncode == 1


def test_services_want_a_certificate_of_each_other(tls: Stack) -> None:
    lines = tls.execute("gateway", "python", "-c", CALL).splitlines()
    said = dict(line.partition(" ")[::2] for line in lines)
    # Through, and asked for the token.
    assert said["certificate"] in {"", "UNAUTHENTICATED"}
    assert said["none"] == said["plain"] == "UNAVAILABLE"
