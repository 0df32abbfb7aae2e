"""That policies let through what is configured to be called, and nothing that must not be."""

import ipaddress
import re
from collections.abc import Iterator
from typing import Any

import yaml

from services.runtime.settings import NOUNS
from tests.deploy.kubernetes.checks.settings import called_by
from tests.deploy.kubernetes.environment import environment_of
from tests.deploy.kubernetes.rendering import (
    ROOT,
    Object,
    World,
    component_of,
    container_of,
    labels_of,
    matches,
    name_of,
)

OUTSIDE: dict[str, str] = {}
"""The labels of a pod that is none of ours."""
ELSEWHERE, MONITORING, DNS = "elsewhere", "monitoring", "kube-system"
# Of the network that stands for what is outside the cluster until it is replaced.
_EXTERNAL = ipaddress.ip_address("203.0.113.1")
SHORTEST_PREFIX = 8
"""Of a network that pods may be let out to: less is most of the world."""


def policies(world: World) -> Iterator[str]:
    """Edges that are called, scraped or resolved are open at both ends; others are not."""
    if not any(world.all("NetworkPolicy")):
        return
    pods = {workload["metadata"]["name"]: labels_of(workload) for workload in world.workloads()}
    elsewhere = {
        each["metadata"]["name"]: each["spec"]["externalName"].split(".")[1]
        for each in world.all("Service")
        if each["spec"].get("type") == "ExternalName"
    }
    for workload in world.workloads():
        caller = workload["metadata"]["name"]
        for host, port in _called(world, workload):
            if host in elsewhere:
                if not _leaves(world, pods[caller], {}, port, namespace=elsewhere[host]):
                    yield f"{name_of(workload)} is not let out to {host}, in {elsewhere[host]}"
            elif host in pods and not _open(world, pods[caller], pods[host], port):
                yield f"{name_of(workload)} calls {host}:{port} and is not let through"
            elif host not in pods and not _leaves(world, pods[caller], None, port):
                yield f"{name_of(workload)} calls {host}:{port} and is not let out"
        if not _leaves(
            world, pods[caller], {"k8s-app": "kube-dns"}, 53, namespace=DNS, protocol="UDP"
        ):
            yield f"{name_of(workload)} cannot look up names"
        if component_of(workload) in {"service", "proxy"} and not _enters(
            world, OUTSIDE, pods[caller], 9464, MONITORING
        ):
            yield f"Prometheus cannot reach {name_of(workload)}"
    if not _enters(world, OUTSIDE, pods["envoy"], 50051, ELSEWHERE):
        yield "nobody can call Envoy"
    yield from _shut(world, pods)


def bounds(world: World) -> Iterator[str]:
    """Nothing is let out to everywhere."""
    for policy in world.all("NetworkPolicy"):
        for rule in policy["spec"].get("egress", []):
            peers = rule.get("to", [])
            blocks = [ipaddress.ip_network(p["ipBlock"]["cidr"]) for p in peers if "ipBlock" in p]
            if not peers or any(block.prefixlen < SHORTEST_PREFIX for block in blocks):
                yield f"{name_of(policy)} lets pods out to everywhere"


def _shut(world: World, pods: dict[str, dict[str, str]]) -> Iterator[str]:
    for name, labels in pods.items():
        if name != "envoy" and _enters(world, OUTSIDE, labels, 50051, ELSEWHERE):
            yield f"{name} can be called from outside"
        for port in (6333, 6334):
            target = {"app.kubernetes.io/name": "qdrant", "app.kubernetes.io/component": "store"}
            if name != "query" and (
                _leaves(world, labels, target, port) or _leaves(world, labels, None, port)
            ):
                yield f"{name} can reach Qdrant at {port}"
        for other in NOUNS:
            callers = {"envoy", *(["gateway"] if other != "gateway" else [])}
            if name not in callers and _open(world, labels, pods[other], 50051):
                yield f"{name} can call {other}"


def _called(world: World, workload: Object) -> Iterator[tuple[str, int]]:
    """host and port of whom this calls, by its settings or Envoy's clusters."""
    name = workload["metadata"]["name"]
    for variable, host, port in called_by(environment_of(world, workload)):
        to_query = variable.startswith("DEMIURGE_QUERY_") and variable != "DEMIURGE_QUERY_ADDRESS"
        if variable.endswith("_ADDRESS") and name != "gateway":
            continue
        if not to_query or name == "query":
            yield host, port
    if port := re.search(r"--master-port=(\d+)", " ".join(container_of(workload).get("args", []))):
        yield name, int(port[1])
    if name == "envoy":
        started = container_of(workload)["command"]
        if "--config-yaml" in started:
            variable = started[started.index("--config-yaml") + 1].strip("$()")
            for endpoint in _endpoints(yaml.safe_load(environment_of(world, workload)[variable])):
                address = endpoint["address"]["socket_address"]
                yield address["address"], address["port_value"]
        clusters = yaml.safe_load((ROOT / "deploy" / "envoy" / "clusters.yaml").read_text())
        for endpoint in _endpoints(clusters):
            address = endpoint["address"]["socket_address"]
            if address["address"] in NOUNS:
                yield address["address"], address["port_value"]
                yield address["address"], endpoint["health_check_config"]["port_value"]


def _endpoints(tree: Any) -> Iterator[Object]:
    """Every `endpoint` of Envoy's clusters."""
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        if key == "endpoint":
            yield value
        elif isinstance(value, dict | list):
            yield from _endpoints(value)


def _open(world: World, caller: dict[str, str], called: dict[str, str], port: int) -> bool:
    return _leaves(world, caller, called, port) and _enters(world, caller, called, port)


def _leaves(
    world: World,
    caller: dict[str, str],
    called: dict[str, str] | None,
    port: int,
    *,
    namespace: str = "",
    protocol: str = "TCP",
) -> bool:
    """Whether the caller is let out to such a pod, to an address outside where it is None."""
    rules = _rules(world, caller, "Egress")
    return rules is None or any(
        _ports(rule, port, protocol) and _peers(rule.get("to"), called, namespace) for rule in rules
    )


def _enters(
    world: World, caller: dict[str, str], called: dict[str, str], port: int, namespace: str = ""
) -> bool:
    """Whether the caller, a pod of ours unless a namespace is given, is let in."""
    rules = _rules(world, called, "Ingress")
    return rules is None or any(
        _ports(rule, port, "TCP") and _peers(rule.get("from"), caller, namespace) for rule in rules
    )


def _rules(world: World, labels: dict[str, str], direction: str) -> list[Object] | None:
    """What these pods are allowed; None where no policy is about them."""
    about = [
        each["spec"]
        for each in world.all("NetworkPolicy")
        if direction in each["spec"]["policyTypes"] and matches(each["spec"]["podSelector"], labels)
    ]
    if not about:
        return None
    return [rule for spec in about for rule in spec.get(direction.lower(), [])]


def _ports(rule: Object, port: int, protocol: str) -> bool:
    ports = rule.get("ports")
    return ports is None or any(
        each.get("protocol", "TCP") == protocol and each.get("port", port) == port for each in ports
    )


def _peers(peers: list[Object] | None, labels: dict[str, str] | None, namespace: str) -> bool:
    return peers is None or any(_is_peer(each, labels, namespace) for each in peers)


def _is_peer(peer: Object, labels: dict[str, str] | None, namespace: str) -> bool:
    if block := peer.get("ipBlock"):
        # What it means for addresses of pods depends on the plug-in.
        return labels is None and _EXTERNAL in ipaddress.ip_network(block["cidr"])
    if labels is None:
        return False
    if "namespaceSelector" in peer:
        if not matches(peer["namespaceSelector"], {"kubernetes.io/metadata.name": namespace}):
            return False
    elif namespace:
        return False
    return matches(peer.get("podSelector", {}), labels)
