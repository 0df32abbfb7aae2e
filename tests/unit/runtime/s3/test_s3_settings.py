"""What is wrong with settings, keys, clocks and buckets is said by name."""

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import minio.time
import pytest

from services.errors import (
    ConfigurationError,
    ObjectKeyError,
    UnauthenticatedError,
    UnavailableError,
)
from services.runtime.object_store.opening import open_store
from services.runtime.object_store.s3 import S3Store
from services.runtime.settings import RuntimeSettings, S3Settings, load
from tests.servers.relay import Answer, relay
from tests.servers.seaweed import BUCKET, Seaweed

MEBIBYTE = 1 << 20


def test_a_bucket_is_made_and_one_that_has_gone_is_unavailable_not_empty(
    seaweed: Seaweed, settings: S3Settings
) -> None:
    store = S3Store("demiurge-other", "", settings)
    store.put("a", b"1")
    assert list(store.keys("")) == ["a"]
    store.delete("a")
    seaweed.client().remove_bucket("demiurge-other")
    calls: list[Callable[[], object]] = [
        lambda: store.read("a"),
        lambda: store.stat("a"),
        lambda: store.exists("a"),
        lambda: store.put("a", b"1"),
        lambda: store.put_new("a", b"1"),
        lambda: list(store.keys("")),
    ]
    for call in calls:
        with pytest.raises(UnavailableError, match="the bucket demiurge-other has gone"):
            call()


def test_keys_that_are_refused_are_named(
    seaweed: Seaweed, settings: S3Settings, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("wrong")
    for field in ("access_key_file", "secret_key_file"):
        with pytest.raises(UnauthenticatedError, match="DEMIURGE_S3_SECRET_KEY_FILE"):
            S3Store(BUCKET, "", settings.model_copy(update={field: wrong}))


def test_keys_that_cannot_be_read_are_named_by_variable(
    settings: S3Settings, tmp_path: Path
) -> None:
    (tmp_path / "empty").write_text("\n")
    for path, why in ((tmp_path / "none", "cannot be read"), (tmp_path / "empty", "is empty")):
        with pytest.raises(ConfigurationError, match=f"DEMIURGE_S3_ACCESS_KEY_FILE: .*{why}"):
            S3Store(BUCKET, "", settings.model_copy(update={"access_key_file": path}))


def test_https_to_a_server_of_plain_http_is_the_endpoints_fault(settings: S3Settings) -> None:
    secure = settings.endpoint.replace("http://", "https://")
    with pytest.raises(ConfigurationError, match=r"DEMIURGE_S3_ENDPOINT: .* plain http: say http"):
        S3Store(BUCKET, "", settings.model_copy(update={"endpoint": secure}))


def test_a_clock_that_is_wrong_is_said_to_be(
    settings: S3Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = minio.time.utcnow()
    monkeypatch.setattr(minio.time, "utcnow", lambda: now - timedelta(hours=3))
    with pytest.raises(UnauthenticatedError, match="set both clocks"):
        S3Store(BUCKET, "", settings)


@pytest.mark.parametrize(
    ("location", "variable"),
    [
        ("s3://", "DEMIURGE_STORE"),
        ("s3://UPPER_case!", "DEMIURGE_STORE"),
        ("s3://bucket/../other", "DEMIURGE_STORE"),
        ("s3://bucket//x", "DEMIURGE_STORE"),
    ],
)
def test_locations_that_cannot_be_are_refused_by_variable(
    seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch, location: str, variable: str
) -> None:
    for name, value in seaweed.environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=variable):
        open_store(RuntimeSettings(store=location))


def test_settings_come_from_the_environment_and_fail_by_name(
    seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEMIURGE_STORE", seaweed.location() + "/")
    with pytest.raises(ConfigurationError, match="DEMIURGE_S3_ENDPOINT: is needed"):
        open_store(load(RuntimeSettings))
    for name, value in seaweed.environment.items():
        monkeypatch.setenv(name, value)
    open_store(load(RuntimeSettings)).put("a", b"1")
    assert list(open_store(load(RuntimeSettings)).keys("")) == ["a"]
    monkeypatch.setenv("DEMIURGE_S3_REGOIN", "x")
    with pytest.raises(ConfigurationError, match="did you mean DEMIURGE_S3_REGION"):
        open_store(load(RuntimeSettings))
    monkeypatch.delenv("DEMIURGE_S3_REGOIN")
    for endpoint in ("127.0.0.1:9000", "ftp://host", "http://host/path"):
        monkeypatch.setenv("DEMIURGE_S3_ENDPOINT", endpoint)
        with pytest.raises(ConfigurationError, match="DEMIURGE_S3_ENDPOINT"):
            open_store(load(RuntimeSettings))


def test_a_name_too_long_for_the_server_is_the_keys_fault(store: S3Store) -> None:
    with pytest.raises(ObjectKeyError, match="no key for this server"):
        store.put("a/" + "x" * 300, b"1")


def test_a_held_object_that_finds_no_room_says_where(
    seaweed: Seaweed, store: S3Store, prefix: str
) -> None:
    stored = store.put("large.wav", bytes(20 * MEBIBYTE))
    # A limit on file size fails in the middle of a write, as a full disk does.
    program = """
import resource, sys
from services.errors import StorageFullError
from services.runtime.object_store.opening import open_store
from services.runtime.settings import RuntimeSettings, load

store = open_store(load(RuntimeSettings))
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    with store.open("large.wav", sha256=sys.argv[1]):
        pass
except StorageFullError as error:
    print(error)
"""
    said = subprocess.run(
        [sys.executable, "-c", program, stored.sha256],
        env=os.environ | seaweed.environment | {"DEMIURGE_STORE": f"s3://{BUCKET}/{prefix}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "set TMPDIR to a folder on a larger disk" in said.stdout


def test_something_that_is_not_s3_is_said_not_to_be(seaweed: Seaweed, settings: S3Settings) -> None:
    page = Answer(200, b"<html><body>Welcome<br></body>", {"Content-Type": "text/html"})
    with relay(seaweed.endpoint, lambda _: page) as endpoint:
        elsewhere = settings.model_copy(update={"endpoint": endpoint})
        with pytest.raises(UnavailableError, match=r"as S3 does.*DEMIURGE_S3_ENDPOINT"):
            S3Store(BUCKET, "", elsewhere)


def test_tls_trusts_the_authority_that_is_set_and_no_other(
    tmp_path: Path, certificates: Path
) -> None:
    with Seaweed(tmp_path / "server", certificates=certificates) as server:
        secure = S3Settings(
            endpoint=server.endpoint,
            access_key_file=server.access_key_file,
            secret_key_file=server.secret_key_file,
            ca=certificates / "ca.pem",
        )
        store = S3Store(BUCKET, "", secure)
        stored = store.put_new("a", bytes(20 * MEBIBYTE))
        assert store.verify("a") == stored
        with pytest.raises(ConfigurationError, match="DEMIURGE_S3_CA"):
            S3Store(BUCKET, "", secure.model_copy(update={"ca": None}))
        with pytest.raises(ConfigurationError, match=r"DEMIURGE_S3_CA: .* cannot be read"):
            S3Store(BUCKET, "", secure.model_copy(update={"ca": tmp_path / "none"}))
