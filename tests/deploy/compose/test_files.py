"""What docker-compose.yml and its overlays say, read as Compose reads them; no daemon is needed."""

import json
import os
import re
import subprocess
from collections.abc import Mapping
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from services.runtime.settings import NOUNS
from tests.deploy.stack import COMPOSE, ROOT, compose_command

OVERLAYS = sorted(path.stem for path in COMPOSE.glob("*.yml"))
# Layered by whoever has no registry, over seaweedfs.yml.
LAYERS = [overlay for overlay in OVERLAYS if overlay not in {"seaweedfs", "tests"}]
STORES = ((), ("seaweedfs",), ("seaweedfs", "tests"))
SERVERS = ("qdrant", "minio", "envoy")
ONE_OFF = {"train", "demiurge"}
# Nothing else of this shell is to answer for .env.
KNOWN = ("PATH", "HOME", "DOCKER_CONFIG")

pytestmark = pytest.mark.skipif(not compose_command(), reason="Docker Compose is not installed")


@cache
def read(*overlays: str, **settings: str) -> Mapping[str, Any]:
    """The whole, every profile included."""
    files = ["docker-compose.yml", *(f"deploy/compose/{overlay}.yml" for overlay in overlays)]
    named = [part for file in files for part in ("--file", file)]
    done = subprocess.run(
        [*compose_command(), *named, "--profile", "*", "config", "--format", "json"],
        cwd=ROOT,
        env={name: os.environ[name] for name in KNOWN if name in os.environ} | settings,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return dict(json.loads(done.stdout))


def variables() -> dict[str, str]:
    """What .env sets."""
    lines = (ROOT / ".env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def services(*overlays: str) -> dict[str, dict[str, Any]]:
    return dict(read(*overlays)["services"])


@pytest.mark.parametrize("stores", STORES, ids="+".join)
@pytest.mark.parametrize(
    "layers",
    [chosen for count in range(len(LAYERS) + 1) for chosen in combinations(LAYERS, count)],
    ids="+".join,
)
def test_overlays_go_together(stores: tuple[str, ...], layers: tuple[str, ...]) -> None:
    wanted = {*NOUNS, *SERVERS, *ONE_OFF}
    assert wanted <= set(services(*layers, *stores))


@pytest.mark.parametrize("overlays", [(), ("observability",), ("tls",), ("gpu",)], ids="+".join)
def test_nothing_is_published_beyond_loopback(overlays: tuple[str, ...]) -> None:
    published = [
        (name, port["host_ip"], port["target"])
        for name, service in services(*overlays).items()
        for port in service.get("ports", [])
    ]
    assert ("envoy", "127.0.0.1", 50051) in published
    assert all(address == "127.0.0.1" for _, address, _ in published)
    if not overlays:
        assert len(published) == 1


@pytest.mark.parametrize("name", [*NOUNS, *SERVERS, *sorted(ONE_OFF)])
def test_a_container_is_held_to_what_it_needs(name: str) -> None:
    service = services()[name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}
    limits = service["deploy"]["resources"]["limits"]
    assert {"cpus", "memory", "pids"} <= limits.keys()
    assert any(mount.startswith("/tmp:size=") for mount in service["tmpfs"])  # noqa: S108
    assert "privileged" not in service
    if name in ONE_OFF:
        assert service["restart"] == "no"
        assert "ports" not in service
    else:
        assert service["restart"] == "unless-stopped"
        assert not service["healthcheck"].get("disable")


def test_only_envoy_is_on_a_network_that_leads_out() -> None:
    outside = {name for name, network in read()["networks"].items() if not network.get("internal")}
    reaching = {name for name, service in services().items() if outside & set(service["networks"])}
    assert reaching == {"envoy"}


def test_stores_are_reached_by_those_who_need_them_alone() -> None:
    on = {
        network: {name for name, service in services().items() if network in service["networks"]}
        for network in ("objects", "vectors")
    }
    assert on["objects"] == {*NOUNS, *ONE_OFF, "minio"}
    assert on["vectors"] == {"query", "qdrant"}


def test_calls_in_flight_have_ended_before_a_service_is_killed() -> None:
    drain = float(variables()["DRAIN_SECONDS"])
    for noun in NOUNS:
        grace = services()[noun]["stop_grace_period"]
        assert float(grace.removesuffix("s")) > drain + 10


def test_no_secret_is_in_the_environment() -> None:
    for name, service in services("tls").items():
        for variable, value in service.get("environment", {}).items():
            if value and re.search("KEY|TOKEN|PASSWORD|SECRET", variable):
                assert str(value).startswith("/"), f"{name}: {variable}={value}"


def test_every_variable_is_in_env_or_has_a_default() -> None:
    known = variables()
    files = [ROOT / "docker-compose.yml", *COMPOSE.glob("*.yml")]
    for path in files:
        # $$ is no variable of Compose's.
        text = path.read_text().replace("$$", "")
        for name, default in re.findall(r"\$\{(\w+)(:?[-?])?", text):
            assert name in known or default, f"{path.name}: {name}"


def test_images_are_those_of_one_version() -> None:
    for name, service in services("observability").items():
        image, _, tag = service["image"].rpartition(":")
        assert image, name
        assert re.search(r"\d+\.\d+", tag), f"{name}: {service['image']}"


def test_qdrant_is_of_the_version_of_its_client() -> None:
    pins = (ROOT / "constraints.txt").read_text()
    client = re.search(r"^qdrant-client==(\d+\.\d+)", pins, re.MULTILINE)
    server = re.search(r":v(\d+\.\d+)", services()["qdrant"]["image"])
    assert client
    assert server
    assert client[1] == server[1]


def test_qdrant_fetches_no_snapshots() -> None:
    settings = services()["qdrant"]["environment"]
    assert settings["QDRANT__SERVICE__ENABLE_SNAPSHOT_URL_RECOVERY"] == "false"


def test_gpus_go_to_those_who_compute() -> None:
    reserved = {
        name: service["deploy"]["resources"]["reservations"]["devices"]
        for name, service in services("gpu").items()
        if "reservations" in service["deploy"]["resources"]
    }
    assert reserved.keys() == {"synth", "predictor", "train"}
    assert all(device["capabilities"] == ["gpu"] for [device] in reserved.values())


def test_stores_of_others_are_a_matter_of_settings() -> None:
    whole = read(
        COMPOSE_PROFILES="",
        S3_ENDPOINT="https://s3.example.org",
        QDRANT_URL="https://qdrant.example.org:6333",
        OBJECTS_INTERNAL="false",
        VECTORS_INTERNAL="false",
    )
    query = whole["services"]["query"]
    assert query["environment"]["DEMIURGE_S3_ENDPOINT"] == "https://s3.example.org"
    assert query["environment"]["DEMIURGE_QUERY_URL"] == "https://qdrant.example.org:6333"
    assert not query["depends_on"]["minio"]["required"]
    assert not query["depends_on"]["qdrant"]["required"]
    assert not whole["networks"]["objects"].get("internal")


def test_with_tls_nobody_is_permitted_to_go_without() -> None:
    for noun in NOUNS:
        settings = services("tls")[noun]["environment"]
        assert settings["DEMIURGE_ALLOW_INSECURE_BIND"] == "false"
        assert settings["DEMIURGE_TLS_CA"] == "/run/secrets/tls/ca.crt"
        assert settings["DEMIURGE_S3_ENDPOINT"].startswith("https://")


def test_secrets_are_made_once(tmp_path: Path) -> None:
    def made() -> dict[str, bytes]:
        subprocess.run(
            [COMPOSE / "make-secrets.sh", tmp_path / "secrets"], check=True, capture_output=True
        )
        return {path.name: path.read_bytes() for path in (tmp_path / "secrets").iterdir()}

    first = made()
    assert first.keys() == set(read()["secrets"])
    assert len(set(first.values())) == len(first)
    assert min(len(value) for value in first.values()) >= 20
    (tmp_path / "secrets" / "token").unlink()
    second = made()
    assert second.pop("token") != first.pop("token")
    assert second == first


def test_nobody_else_on_the_host_comes_past_the_folder_of_secrets(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    subprocess.run([COMPOSE / "make-secrets.sh", folder], check=True, capture_output=True)
    assert folder.stat().st_mode & 0o777 == 0o700


def test_certificates_are_of_one_authority_and_for_their_names(tmp_path: Path) -> None:
    folder = tmp_path / "certificates"
    command = [str(COMPOSE / "make-certificates.sh"), str(folder), "demiurge.example.org"]
    subprocess.run(command, check=True, capture_output=True)
    authority = folder / "authority" / "ca.crt"
    kept = (folder / "envoy" / "tls.key").read_bytes()
    subprocess.run(command, check=True, capture_output=True)
    assert (folder / "envoy" / "tls.key").read_bytes() == kept
    assert folder.stat().st_mode & 0o777 == 0o700
    names = {"envoy": "demiurge.example.org", **{noun: noun for noun in NOUNS}}
    for name, host in names.items():
        certificate = folder / name / "tls.crt"
        verified = ["openssl", "verify", "-CAfile", str(authority), "-verify_hostname", host]
        subprocess.run([*verified, str(certificate)], check=True, capture_output=True)
