"""The six services behind one Envoy, with models and recordings to work on."""

# ruff: noqa: PLC0415

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.conftest import openssl, sound, upload_messages
from tests.deploy.envoy.names import Names
from tests.deploy.envoy.proxy import Proxy, running
from tests.deploy.envoy.replicas import everyone

TOKEN = "open-sesame"  # noqa: S105 - the test's own


@dataclass(frozen=True)
class Answer:
    """An answer by HTTP/1.1."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Front:
    """One address, and what it takes to be let in."""

    proxy: Proxy
    folder: Path

    @property
    def token_file(self) -> Path:
        return self.folder / "token"

    def channel(self, **options: Any) -> grpc.Channel:
        """A channel as the command opens it."""
        from services.runtime.channels import open_blocking_channel
        from services.runtime.settings import RuntimeSettings

        settings = RuntimeSettings(token_file=self.token_file, **options)
        return open_blocking_channel(self.proxy.address, settings)

    def http(
        self, method: str, path: str, body: bytes | str | None = None, **headers: str
    ) -> Answer:
        """One request with the token; `content_type` and such are headers."""
        given = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        return http(self.proxy, method, path, body, given)


def http(
    proxy: Proxy, method: str, path: str, body: bytes | str | None, headers: dict[str, str]
) -> Answer:
    """One request by HTTP/1.1."""
    connection = HTTPConnection("127.0.0.1", proxy.port, timeout=60)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return Answer(answer.status, dict(answer.getheaders()), answer.read())
    finally:
        connection.close()


@pytest.fixture(scope="package")
def names() -> Iterator[Names]:
    """The name server that Envoy asks."""
    with Names() as server:
        yield server


@pytest.fixture(scope="package")
def front(
    names: Names, trained_models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Front]:
    """All services and Envoy; two sounds to continue and two of material are there."""
    from demiurge.gateway.v1.gateway_service_pb2_grpc import PipelineServiceStub

    folder = tmp_path_factory.mktemp("front")
    shutil.copytree(trained_models, folder / "store")
    token = folder / "token"
    token.write_text(TOKEN)
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("DEMIURGE_")]:
            patch.delenv(name)
        patch.setenv("DEMIURGE_QUERY_FOLDER", str(folder / "query"))
        with (
            everyone(names, folder, token_file=token, predictor_token_file=token),
            running(folder, names.port) as proxy,
        ):
            front = Front(proxy, folder)
            with front.channel() as channel:
                gateway = PipelineServiceStub(channel)
                for seed, database in enumerate(["prediction", "prediction", "material"]):
                    content = sound(1.0, seed)
                    messages = upload_messages(database, f"{seed}.wav", content)
                    gateway.UploadAudio(iter(messages), wait_for_ready=True)
            yield front


@pytest.fixture(scope="package")
def certificates_by_name(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tls.crt and tls.key of the authority ca.crt: for loopback, and all services but one."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")
    key = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl(folder, *key, "-x509", "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.crt")
    named = ("envoy", "localhost", "synth", "descriptor", "query", "playback", "gateway")
    listed = ",".join(["IP:127.0.0.1", *(f"DNS:{name}" for name in named)])
    (folder / "names").write_text(f"subjectAltName={listed}")
    openssl(folder, *key, "-subj", "/CN=demiurge", "-keyout", "tls.key", "-out", "tls.csr")
    authority = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial")
    openssl(
        folder,
        *("x509", "-req", "-in", "tls.csr", "-extfile", "names", "-out", "tls.crt"),
        *authority,
    )
    return folder
