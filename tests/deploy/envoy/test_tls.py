"""TLS to Envoy and from it to the services: without it, or by another's name, nothing is done."""

import ssl
from collections.abc import Iterator
from http.client import HTTPSConnection
from pathlib import Path

import grpc
import pytest
from demiurge.playback.v1.playback_service_pb2 import RenderAudioRequest
from demiurge.playback.v1.playback_service_pb2_grpc import PlaybackServiceStub

from services.errors import InvalidInputError, UnavailableError
from services.runtime.channels import open_blocking_channel
from services.runtime.settings import RuntimeSettings
from services.runtime.status import remote_errors
from tests.deploy.envoy.names import Names
from tests.deploy.envoy.proxy import Proxy, running
from tests.deploy.envoy.replicas import host, served

CLIENTS = "require_client_certificate: false"


def at(folder: Path) -> dict[str, Path]:
    """Settings of whoever has the certificate in that folder."""
    return {
        "tls_ca": folder / "ca.crt",
        "tls_certificate": folder / "tls.crt",
        "tls_key": folder / "tls.key",
    }


@pytest.fixture(scope="module")
def playback(
    certificates_by_name: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Names]:
    """The name of a service that asks for certificates."""
    place = host(40)
    with (
        Names() as names,
        served("playback", place, tmp_path_factory.mktemp("tls"), **at(certificates_by_name)),
    ):
        # The certificate does not say that it is a predictor's.
        names.addresses = {"playback": [place], "predictor": [place]}
        yield names


@pytest.fixture(scope="module", params=["token", "certificate"])
def proxy(
    request: pytest.FixtureRequest,
    playback: Names,
    certificates_by_name: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Proxy]:
    """Envoy with TLS that asks its clients for certificates, or does not."""
    changes = {"/run/secrets/tls": str(certificates_by_name)}
    if request.param == "certificate":
        changes[CLIENTS] = CLIENTS.replace("false", "true")
    folder = tmp_path_factory.mktemp("proxy")
    with running(folder, playback.port, variant="tls", changes=changes) as started:
        yield started


def call(proxy: Proxy, **settings: Path) -> None:
    """RenderAudio of nothing."""
    with remote_errors(), open_blocking_channel(proxy.address, RuntimeSettings(**settings)) as to:
        PlaybackServiceStub(to).RenderAudio(RenderAudioRequest())


def test_a_call_goes_through_two_times_tls(proxy: Proxy, certificates_by_name: Path) -> None:
    with pytest.raises(InvalidInputError, match="output_prefix"):
        call(proxy, **at(certificates_by_name))


def test_a_certificate_is_asked_for_where_that_is_set(
    proxy: Proxy, certificates_by_name: Path, request: pytest.FixtureRequest
) -> None:
    asked = request.node.callspec.params["proxy"] == "certificate"
    with pytest.raises(UnavailableError if asked else InvalidInputError):
        call(proxy, tls_ca=certificates_by_name / "ca.crt")


def test_nobody_is_served_without_tls(proxy: Proxy) -> None:
    with pytest.raises(UnavailableError):
        call(proxy)


def test_a_service_of_another_name_is_not_asked(proxy: Proxy, certificates_by_name: Path) -> None:
    with open_blocking_channel(proxy.address, RuntimeSettings(**at(certificates_by_name))) as to:
        path = "/demiurge.predictor.v1.PredictorService/ListPredictors"
        with pytest.raises(grpc.RpcError) as raised:
            to.unary_unary(path)(b"", timeout=2)
    assert raised.value.code() in {
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNAVAILABLE,
    }


def test_json_comes_by_https(proxy: Proxy, certificates_by_name: Path) -> None:
    context = ssl.create_default_context(cafile=str(certificates_by_name / "ca.crt"))
    context.load_cert_chain(certificates_by_name / "tls.crt", certificates_by_name / "tls.key")
    connection = HTTPSConnection("localhost", proxy.port, context=context, timeout=10)
    connection.request("GET", "/v1/nothing")
    assert connection.getresponse().status == 404
    connection.close()
