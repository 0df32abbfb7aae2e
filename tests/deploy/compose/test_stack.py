"""What docker-compose.yml brings up, seen from the host and from inside."""

import json
import subprocess

import pytest

from services.runtime.settings import NOUNS
from tests.deploy.conftest import OpenContainers
from tests.deploy.stack import Stack, docker

pytestmark = pytest.mark.containers
SERVERS = ("minio", "envoy")
SECRETS = ("token", "s3-access-key", "s3-secret-key", "qdrant-api-key")
# Tries each of some addresses and says which let it in.
REACH = """
import itertools, socket, sys
for host, port in itertools.product(sys.argv[1:], (443, 50051)):
    try:
        socket.create_connection((host, port), timeout=1).close()
        print(host, port)
    except OSError:
        pass
"""


def test_all_come_up_healthy_and_in_order(stack: Stack) -> None:
    for noun in (*NOUNS, *SERVERS):
        for container in stack.containers(noun):
            assert stack.inspect(container)["State"]["Health"]["Status"] == "healthy", noun
    started = stack.first_started
    others = [noun for noun in NOUNS if noun != "gateway"]
    assert started["minio"] < min(started[noun] for noun in others)
    assert max(started[noun] for noun in others) < started["gateway"] < started["envoy"]


def test_one_port_is_published_and_on_loopback(stack: Stack) -> None:
    published = [
        (binding["HostIp"], binding["HostPort"])
        for container in stack.containers()
        for bindings in stack.inspect(container)["NetworkSettings"]["Ports"].values()
        for binding in bindings or []
    ]
    assert published == [("127.0.0.1", str(stack.port))]


@pytest.mark.parametrize("noun", [*NOUNS, *SERVERS])
def test_a_process_is_nobody_and_can_change_nothing(stack: Stack, noun: str) -> None:
    [container] = stack.containers(noun)
    read = "cat /proc/1/status; touch /usr/changed 2>&1 || echo $?"
    said = docker("exec", container, "sh", "-c", read)
    facts = dict(line.split(":", 1) for line in said.splitlines() if line.count(":") == 1)
    assert int(facts["Uid"].split()[0]) >= 100
    assert int(facts["CapEff"], 16) == int(facts["CapPrm"], 16) == int(facts["CapBnd"], 16) == 0
    assert int(facts["NoNewPrivs"]) == 1
    assert "Read-only file system" in said


def test_internal_networks_lead_nowhere(stack: Stack) -> None:
    def joined(noun: str) -> dict[str, dict[str, str]]:
        [container] = stack.containers(noun)
        return dict(stack.inspect(container)["NetworkSettings"]["Networks"])

    for noun in (*NOUNS, "minio"):
        for network in joined(noun):
            assert docker("network", "inspect", network, "--format", "{{.Internal}}") == "true\n"
    # Outside, and the network that Envoy is published from.
    outside = ("1.1.1.1", joined("envoy")[f"{stack.project}_front"]["IPAddress"])
    assert not stack.execute("gateway", "python", "-c", REACH, *outside)


def test_no_secret_is_seen_from_outside(stack: Stack) -> None:
    secrets = [(stack.secrets / name).read_text() for name in SECRETS]
    access_key = (stack.secrets / "s3-access-key").read_text()
    for container in stack.containers():
        known = json.dumps(stack.inspect(container)) + docker("top", container, "-eo", "pid,args")
        assert not [secret for secret in secrets if secret in known]
    logged = stack.logs()
    # Of the pair, the access key is the name: SeaweedFS says whom it knows.
    assert not [secret for secret in secrets if secret in logged and secret != access_key]


def test_whoever_lacks_the_token_is_refused(stack: Stack) -> None:
    wrong = stack.folder / "wrong"
    wrong.write_text("wrong")
    for settings in ({"DEMIURGE_TOKEN_FILE": ""}, {"DEMIURGE_TOKEN_FILE": str(wrong)}):
        refused = stack.demiurge("models", settings=settings, check=False)
        assert refused.returncode == 1
        assert "token" in refused.stderr.lower()


def test_missing_secrets_are_named(open_containers: OpenContainers) -> None:
    stack = open_containers()
    try:
        with pytest.raises(subprocess.CalledProcessError) as failure:
            stack.compose("up", "--detach", "--no-build", "minio")
        assert "does not exist" in str(failure.value)
        assert str(stack.secrets) in str(failure.value)
    finally:
        stack.down()
