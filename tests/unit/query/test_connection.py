"""How a Qdrant server is reached: key, certificates, patience, and its errors in ours."""

import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc
import numpy as np
import pytest

from services.audio.match_table import SourceRef
from services.errors import (
    BusyError,
    CancelledError,
    ConfigurationError,
    DemiurgeError,
    InvalidInputError,
    StorageFullError,
    UnauthenticatedError,
    UnavailableError,
)
from services.query.connection import Connection, connect
from services.query.index import CollectionSpec
from services.query.server import ServerIndex
from services.query.settings import QuerySettings
from services.runtime.settings import load
from tests.servers.qdrant import Qdrant

SPEC = CollectionSpec(("mfcc0",), 44100, 1024)
FRAMES = np.zeros((2, 1), np.float32)
WREN = SourceRef("wren.wav", "0" * 64, 1, "audio/wav")


@contextmanager
def opened(
    server: Qdrant, *, api_key: str = "", authorities: bytes | None = None, seconds: int = 30
) -> Iterator[ServerIndex]:
    client = connect(
        server.url,
        server.grpc_port,
        api_key=api_key,
        authorities=authorities,
        timeout_seconds=seconds,
    )
    index = ServerIndex(Connection(client, server.url))
    yield index
    index.close()


def test_the_key_is_sent_with_every_call_and_a_wrong_one_is_refused_by_name() -> None:
    with Qdrant(api_key="right") as server:
        with opened(server, api_key="right") as index:
            index.create("birds", SPEC)
            assert index.add("birds", WREN, FRAMES) == 2
            assert index.publish("birds", "current").aliases == ("current",)
        for key in ("", "wrong"):
            with (
                opened(server, api_key=key) as index,
                pytest.raises(UnauthenticatedError, match="DEMIURGE_QUERY_API_KEY_FILE"),
            ):
                index.list()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A server's certificate that signs itself, and another that signs nobody's."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")
    for name in ("own", "other"):
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "ec", "-nodes", "-subj", "/CN=localhost"),
                *("-pkeyopt", "ec_paramgen_curve:P-256"),
                *("-addext", "subjectAltName=IP:127.0.0.1"),
                *("-keyout", f"{name}.key", "-out", f"{name}.pem"),
            ],
            cwd=folder,
            check=True,
            capture_output=True,
        )
    return folder


def test_a_server_is_trusted_by_its_authority_alone(certificates: Path) -> None:
    own = (certificates / "own.pem").read_bytes()
    pair = ((certificates / "own.key").read_bytes(), own)
    with Qdrant(api_key="right", certificate=pair) as server:
        with opened(server, api_key="right", authorities=own) as index:
            assert index.create("birds", SPEC).id == "birds"
        for authorities in ((certificates / "other.pem").read_bytes(), None):
            with (
                opened(server, api_key="right", authorities=authorities) as index,
                pytest.raises(UnavailableError, match="DEMIURGE_QUERY_CA"),
            ):
                index.list()


def test_a_server_that_is_not_there_is_named_with_what_to_do() -> None:
    with Qdrant() as server:
        pass
    with opened(server) as index, pytest.raises(UnavailableError) as refused:
        index.describe("birds")

    assert server.url in refused.value.message
    assert "DEMIURGE_QUERY_URL" in refused.value.message


def test_a_server_that_was_away_is_found_at_once_when_it_is_back() -> None:
    with Qdrant() as first, opened(first) as index:
        index.list()
        first.stop()
        for _ in range(3):
            with pytest.raises(UnavailableError):
                index.list()
        with Qdrant(port=first.grpc_port):
            for _ in range(3):
                with suppress(UnavailableError):
                    index.list()
            assert index.list() == []
            assert index.create("birds", SPEC).id == "birds"


def test_a_server_that_hangs_is_given_up_after_the_timeout() -> None:
    with Qdrant() as server, opened(server, seconds=1) as index:
        server.hanging = "all"
        with pytest.raises(UnavailableError, match="did not answer in time"):
            index.list()
        server.hanging = ""
        assert index.list() == []


def test_a_caller_that_gave_up_does_not_wait_for_a_server_that_hangs() -> None:
    with Qdrant() as server, opened(server) as index:
        index.create("birds", SPEC)
        index.add("birds", WREN, FRAMES)
        server.hanging = "Points.Upsert"
        given_up = threading.Event()

        def checkpoint() -> None:
            if given_up.is_set():
                raise CancelledError("nobody waits")

        threading.Timer(0.3, given_up.set).start()
        owl = SourceRef("owl.wav", "0" * 64, 1, "audio/wav")
        began = time.monotonic()
        with pytest.raises(CancelledError):
            index.add("birds", owl, FRAMES, checkpoint=checkpoint)
        # Far less than the timeout of a call.
        assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("code", "said", "error", "named"),
    [
        (grpc.StatusCode.PERMISSION_DENIED, "read only", UnauthenticatedError, "read and write"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "rate limit", BusyError, "later"),
        (grpc.StatusCode.INTERNAL, "No space left on device: WAL", StorageFullError, "make room"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "No space left", StorageFullError, "make room"),
        (grpc.StatusCode.INVALID_ARGUMENT, "too many", InvalidInputError, "too many"),
        (grpc.StatusCode.INTERNAL, "panicked", UnavailableError, "panicked.*log"),
    ],
)
def test_what_the_server_says_reaches_the_caller_as_an_error_of_ours(
    code: grpc.StatusCode, said: str, error: type[DemiurgeError], named: str
) -> None:
    with Qdrant() as server, opened(server) as index:
        index.create("birds", SPEC)
        server.failing["Points.Upsert"] = (code, said)
        with pytest.raises(error, match=named):
            index.add("birds", WREN, FRAMES)


@pytest.mark.parametrize(
    ("url", "refused"),
    [
        ("http://qdrant.example:6333", True),
        ("https://qdrant.example:6333", False),
        ("http://127.0.0.1:6333", False),
        ("http://[::1]:6333", False),
        ("http://localhost", False),
    ],
)
def test_a_key_is_never_sent_unprotected_to_another_machine(
    tmp_path: Path, url: str, refused: bool
) -> None:
    (tmp_path / "key").write_text("secret\n")
    settings = QuerySettings(url=url, api_key_file=tmp_path / "key")

    assert settings.api_key(allow_unprotected=True) == "secret"
    if refused:
        with pytest.raises(ConfigurationError, match=r"DEMIURGE_QUERY_URL.*unprotected"):
            settings.api_key(allow_unprotected=False)
    else:
        assert settings.api_key(allow_unprotected=False) == "secret"


@pytest.mark.parametrize(
    ("variable", "value", "content"),
    [
        ("DEMIURGE_QUERY_URL", "qdrant.example:6333", None),
        ("DEMIURGE_QUERY_URL", "grpc://qdrant.example", None),
        ("DEMIURGE_QUERY_API_KEY_FILE", "missing", None),
        ("DEMIURGE_QUERY_API_KEY_FILE", "empty", b"\n"),
        ("DEMIURGE_QUERY_API_KEY_FILE", "two lines", b"a\nb"),
        ("DEMIURGE_QUERY_CA", "missing", None),
        ("DEMIURGE_QUERY_CA", "no PEM", b"text"),
    ],
)
def test_settings_that_cannot_work_are_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
    content: bytes | None,
) -> None:
    monkeypatch.setenv("DEMIURGE_QUERY_URL", "https://qdrant.example:6333")
    if not variable.endswith("URL"):
        if content is not None:
            (tmp_path / value).write_bytes(content)
        value = str(tmp_path / value)
    monkeypatch.setenv(variable, value)

    def start() -> None:
        settings = load(QuerySettings)
        settings.api_key(allow_unprotected=False)
        settings.authorities()

    with pytest.raises(ConfigurationError, match=variable):
        start()
