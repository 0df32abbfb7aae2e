"""Each image serves with nothing writable but its volumes, says how it is, and stops when told."""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import grpc
import pytest
from demiurge.gateway.v1.gateway_service_pb2 import UploadAudioRequest
from demiurge.gateway.v1.gateway_service_pb2_grpc import PipelineServiceStub
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.runtime.settings import NOUNS
from tests.conftest import sound, upload_messages
from tests.deploy.images.container import PEERS, output, refused, running

pytestmark = pytest.mark.containers
# Without TLS and token, as nobody should: nothing but these tests reaches them.
OPEN = ("--env", "DEMIURGE_ALLOW_INSECURE_BIND=true")


@pytest.mark.parametrize("noun", NOUNS)
def test_it_becomes_healthy_and_ends_in_peace(images: Mapping[str, str], noun: str) -> None:
    with running(images[noun], options=(*OPEN, *PEERS)) as container:
        container.wait_until("healthy")
        # The command itself is the first process, which signals reach.
        first = container.execute("cat", "/proc/1/cmdline")
        assert first.rstrip("\0").split("\0")[1:] == ["/opt/demiurge/bin/demiurge", "serve", noun]
        container.signal("TERM")
        assert container.end() == 0


def test_a_call_in_flight_is_finished_before_the_end(images: Mapping[str, str]) -> None:
    with running(images["gateway"], options=(*OPEN, *PEERS, *published())) as container:
        container.wait_until("healthy")
        messages = upload_messages("recorded", "tone.wav", sound())

        def slowly() -> Iterator[UploadAudioRequest]:
            header, *parts = messages
            yield from (header, parts[0])
            container.signal("TERM")
            health = health_pb2_grpc.HealthStub(checks)
            request = health_pb2.HealthCheckRequest(service="readiness")
            while health.Check(request).status == health_pb2.HealthCheckResponse.SERVING:
                time.sleep(0.05)
            yield from parts[1:]

        with (
            grpc.insecure_channel(container.address(50050)) as checks,
            grpc.insecure_channel(container.address(50051)) as channel,
        ):
            stored = PipelineServiceStub(channel).UploadAudio(slowly(), timeout=60).audio
        assert stored.key == "audio/recorded/tone.wav"
        assert container.end() == 0


@pytest.mark.parametrize("noun", ["synth", "gateway"])
def test_told_to_stop_while_it_starts_it_ends(images: Mapping[str, str], noun: str) -> None:
    with running(images[noun], options=(*OPEN, *PEERS)) as container:
        # Once it is past the start of Python itself, which no program can shorten.
        while "grpc" not in container.execute("cat", "/proc/1/maps"):
            time.sleep(0.05)
        container.signal("TERM")
        assert container.end() == 0
        assert "serving" not in container.logs()


def test_one_that_hangs_is_unhealthy(images: Mapping[str, str]) -> None:
    strict = ("--health-retries", "2")
    with running(images["gateway"], options=(*OPEN, *PEERS, *strict)) as container:
        container.wait_until("healthy")
        container.signal("STOP")
        container.wait_until("unhealthy")
        container.signal("CONT")
        container.wait_until("healthy")


def test_beyond_loopback_it_wants_tls_and_a_token(images: Mapping[str, str]) -> None:
    assert "DEMIURGE_BIND_ADDRESS" in refused(images["playback"])


def test_descriptors_are_those_of_any_other_installation(images: Mapping[str, str]) -> None:
    """Though numba compiles for no particular processor there."""
    code = Path(__file__).with_name("describing.py").read_text()
    here: dict[str, str] = {}
    exec(compile(code, "describing.py", "exec"), here)  # noqa: S102 - the same code here and there
    there = output(images["descriptor"], "-c", code, entrypoint="python")
    assert there.split()[-1] == here["digest"]


def test_numba_finds_everything_compiled(images: Mapping[str, str]) -> None:
    code = (
        "import os; from services.descriptor import mfcc; from pathlib import Path; "
        "files = lambda: {p: p.stat().st_mtime for p in Path('/var/cache/numba').rglob('*.nb*')}; "
        "before = files(); mfcc.warm_up(); print(len(before), before == files())"
    )
    count, same = output(images["descriptor"], "-c", code, entrypoint="python").split()
    assert int(count) > 10
    assert same == "True"


def published() -> tuple[str, ...]:
    """Options that publish what is called and asked for its health, at free ports."""
    return ("--publish", "127.0.0.1::50051", "--publish", "127.0.0.1::50050")
