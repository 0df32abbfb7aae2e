"""Envoy takes each variant, the files fit each other, and their numbers are the services'."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.runtime.channels import KEEPALIVE_SECONDS, KEEPALIVE_TIMEOUT_SECONDS
from services.runtime.server import MIN_PING_INTERVAL_SECONDS
from services.runtime.settings import NOUNS, RuntimeSettings
from tests.deploy.envoy.names import Names
from tests.deploy.envoy.proxy import CONFIGURATION, binary, placed, running

KEEPALIVE = {"interval": f"{KEEPALIVE_SECONDS}s", "timeout": f"{KEEPALIVE_TIMEOUT_SECONDS}s"}


def read(name: str) -> dict[str, Any]:
    """A file of the configuration."""
    loaded: dict[str, Any] = yaml.safe_load((CONFIGURATION / name).read_text())
    return loaded


def front() -> dict[str, Any]:
    """The HTTP side."""
    settings: dict[str, Any] = read("http.yaml")["resources"][0]["typed_config"]
    return settings


@pytest.mark.parametrize("fragment", [[], ["tracing.yaml"]], ids=["plain", "tracing"])
@pytest.mark.parametrize("variant", ["", "tls"])
def test_envoy_takes_every_variant(
    names: Names, certificates_by_name: Path, tmp_path: Path, variant: str, fragment: list[str]
) -> None:
    # What `--mode validate` sees is envoy.yaml alone: the other files are read by a running one.
    place = {"/run/secrets/tls": str(certificates_by_name)}
    with running(tmp_path, names.port, variant=variant, fragments=fragment, changes=place) as proxy:
        figures = proxy.metrics()
        log = proxy.log.read_text()
    rejected = re.findall(
        r"^(\S*(?:rejected|config_fail|rq_error)\S*) ([1-9]\d*)$", figures, re.MULTILINE
    )
    assert not rejected
    assert "deprecated" not in log.lower()
    clusters = {*NOUNS, "admin", *(["traces"] if fragment else [])}
    assert (
        set(re.findall(r'envoy_cluster_membership_total\{envoy_cluster_name="(\w+)"', figures))
        == clusters
    )


def test_a_broken_file_is_caught(tmp_path: Path) -> None:
    place = placed(tmp_path)
    (place / "envoy.yaml").write_text((place / "envoy.yaml").read_text() + "\nlisteners: []\n")
    checked = subprocess.run(
        [binary(), "--mode", "validate", "-c", place / "envoy.yaml"],
        capture_output=True,
        check=False,
        text=True,
    )
    assert checked.returncode == 1
    assert "listeners" in checked.stderr


def test_the_variant_with_tls_differs_in_nothing_but_tls() -> None:
    clusters = read("tls/clusters.yaml")
    for cluster in clusters["resources"]:
        context = cluster.pop("transport_socket")["typed_config"]
        assert context["auto_sni_san_validation"]
        assert context["auto_host_sni"]
        del cluster["transport_socket_matches"]
        cluster["health_checks"] = [
            {
                name: value
                for name, value in check.items()
                if name != "transport_socket_match_criteria"
            }
            for check in cluster["health_checks"]
        ]
    assert clusters == read("clusters.yaml")
    listeners = read("tls/listeners.yaml")
    (chain,) = listeners["resources"][0]["filter_chains"]
    del chain["transport_socket"], chain["transport_socket_connect_timeout"]
    assert listeners == read("listeners.yaml")


def test_each_noun_has_a_cluster_and_a_route_by_its_package() -> None:
    assert [cluster["name"] for cluster in read("clusters.yaml")["resources"]] == list(NOUNS)
    (host,) = front()["route_config"]["virtual_hosts"]
    routes = {
        route["match"]["prefix"]: route["route"]["cluster"]
        for route in host["routes"]
        if "route" in route and "headers" not in route["match"]
    }
    assert routes.pop("/grpc.health.v1.Health/") == "gateway"
    assert routes == {f"/demiurge.{noun}.v1.": noun for noun in NOUNS}
    assert all(route["route"]["timeout"] == "0s" for route in host["routes"] if "route" in route)


def test_limits_and_pings_are_those_of_the_services() -> None:
    limit = RuntimeSettings.model_fields["max_message_bytes"].default
    (host,) = front()["route_config"]["virtual_hosts"]
    assert host["request_body_buffer_limit"] == limit
    assert front()["http2_protocol_options"]["connection_keepalive"] == KEEPALIVE
    assert MIN_PING_INTERVAL_SECONDS < KEEPALIVE_SECONDS
    for cluster in read("clusters.yaml")["resources"]:
        (options,) = cluster["typed_extension_protocol_options"].values()
        http2 = options["explicit_http_config"]["http2_protocol_options"]
        assert http2["connection_keepalive"] == KEEPALIVE
        # Of pings without a call in between, gRPC forgives two.
        idle = int(options["common_http_protocol_options"]["idle_timeout"].rstrip("s"))
        assert idle < 2 * KEEPALIVE_SECONDS
