"""That objects fit each other: selectors, ports, names, accounts, budgets, what scales."""

import re
import tomllib
from collections.abc import Iterator

import yaml

from services.runtime.settings import NOUNS
from tests.deploy.kubernetes.rendering import (
    KUBERNETES,
    ROOT,
    Object,
    World,
    component_of,
    container_of,
    labels_of,
    matches,
    name_of,
    pod_of,
)

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def selectors(world: World) -> Iterator[str]:
    """A workload selects its own pods; a Service or budget those of exactly one workload."""
    for workload in world.all("Deployment", "StatefulSet"):
        taken = [
            name_of(w) for w in world.workloads() if matches(_selector(workload), labels_of(w))
        ]
        if taken != [name_of(workload)]:
            yield f"{name_of(workload)} selects the pods of {taken}"
        for spread in pod_of(workload).get("topologySpreadConstraints", []):
            if not matches(spread["labelSelector"], labels_of(workload)):
                yield f"{name_of(workload)} spreads pods that are not its own"
    for each in world.all("Service", "PodDisruptionBudget"):
        if each["spec"].get("type") == "ExternalName":
            continue
        taken = [name_of(w) for w in world.workloads() if matches(_selector(each), labels_of(w))]
        expected = each["metadata"]["name"]
        if [name.partition("/")[2] for name in taken] != [expected]:
            yield f"{name_of(each)} selects the pods of {taken}, not of {expected}"


def _selector(thing: Object) -> Object | None:
    return thing["spec"].get("selector")  # type: ignore[no-any-return]


def ports(world: World) -> Iterator[str]:
    """Services lead to ports that containers have, and headless ones do not translate them."""
    for service in world.all("Service"):
        for workload in world.workloads():
            if not matches(_selector(service), labels_of(workload)):
                continue
            named = {
                p.get("name"): p["containerPort"] for p in container_of(workload).get("ports", [])
            }
            for port in service["spec"]["ports"]:
                target = port.get("targetPort", port["port"])
                number = named.get(target, target)
                if number not in named.values():
                    yield f"{name_of(service)}: {name_of(workload)} has no port {target}"
                elif service["spec"].get("clusterIP") == "None" and number != port["port"]:
                    yield f"{name_of(service)} is headless: {port['port']} is never made {number}"
    for noun in NOUNS:
        found = [s for s in world.all("Service") if s["metadata"]["name"] == noun]
        if [s["spec"].get("clusterIP") for s in found] != ["None"]:
            yield f"Service/{noun} is not headless: clients could not balance over its pods"


def nouns(world: World) -> Iterator[str]:
    """The services are the six nouns, each in its image, as its account, of this version."""
    found = {each["metadata"]["name"] for each in world.services()}
    if found != set(NOUNS):
        yield f"services are {sorted(found)}"
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    for workload in world.workloads():
        name, image = workload["metadata"]["name"], container_of(workload)["image"]
        if "demiurge/" in image and image.rpartition(":")[2] != VERSION:
            yield f"{name_of(workload)}: {image} is not of version {VERSION}"
        own = image.partition("demiurge/")[2].partition(":")[0]
        if component_of(workload) == "service" and (
            own != name or pod_of(workload)["serviceAccountName"] != name
        ):
            yield f"{name_of(workload)} runs {image} as {pod_of(workload)['serviceAccountName']}"
        if component_of(workload) == "job" and own not in NOUNS:
            yield f"{name_of(workload)}: {image} is of no noun"
        if "demiurge/" not in image and compose[name]["image"] != image:
            yield f"{name_of(workload)}: compose has {compose[name]['image']}, not {image}"


def images(world: World) -> Iterator[str]:
    """Images of the project all come from one place, which may ask who pulls."""
    found: dict[str, set[str]] = {}
    known = {each["metadata"]["name"] for each in world.all("ServiceAccount") if _pulls(each)}
    for workload in world.workloads():
        prefix, own, _ = container_of(workload)["image"].rpartition("demiurge/")
        if own:
            found.setdefault(prefix, set()).add(name_of(workload))
        if own and prefix and pod_of(workload)["serviceAccountName"] not in known:
            yield f"{name_of(workload)} cannot pull from {prefix} where that asks for a password"
    if len(found) != 1:
        yield f"images are pulled from several places: {found}"


def _pulls(account: Object) -> bool:
    return account.get("imagePullSecrets") == [{"name": "registry"}]


def accounts(world: World) -> Iterator[str]:
    """Every pod has an account of its own, which opens nothing."""
    known = {each["metadata"]["name"]: each for each in world.all("ServiceAccount")}
    for workload in world.workloads():
        name = pod_of(workload).get("serviceAccountName", "default")
        if name != workload["metadata"]["name"] or name not in known:
            yield f"{name_of(workload)} runs as {name}, which is not its own ServiceAccount"
        elif known[name].get("automountServiceAccountToken") is not False:
            yield f"ServiceAccount/{name} is mounted into pods"
        if pod_of(workload).get("automountServiceAccountToken") is not False:
            yield f"{name_of(workload)} is given a token for the cluster"
        if pod_of(workload).get("enableServiceLinks") is not False:
            yield f"{name_of(workload)} is given variables of Services, as settings are"


def budgets(world: World) -> Iterator[str]:
    """What serves has a budget that lets nodes be drained one by one."""
    found = {each["metadata"]["name"]: each["spec"] for each in world.all("PodDisruptionBudget")}
    for name in (*NOUNS, "envoy"):
        if found.get(name, {}).get("maxUnavailable") != 1:
            yield f"PodDisruptionBudget/{name} does not let one pod go at a time"


def namespaces(world: World) -> Iterator[str]:
    """Everything is in one namespace, which exists."""
    [namespace] = [each["metadata"]["name"] for each in world.all("Namespace")]
    for each in world.objects:
        if each["kind"] != "Namespace" and each["metadata"].get("namespace") != namespace:
            yield f"{name_of(each)} is not in the namespace {namespace}"
    names = [name_of(each) for each in world.objects]
    yield from (f"{name} is there twice" for name in {n for n in names if names.count(n) > 1})


def scaling(world: World) -> Iterator[str]:
    """What scales exists and names metrics that are there; nobody else sets its replicas."""
    metrics = (ROOT / "services" / "runtime" / "metrics.py").read_text()
    adapter = KUBERNETES / "components" / "autoscaling" / "prometheus-adapter.yaml"
    [rule] = yaml.safe_load(adapter.read_text())["rules"]["custom"]
    workloads = {each["metadata"]["name"]: each for each in world.all("Deployment")}
    for scaler in world.all("HorizontalPodAutoscaler"):
        spec = scaler["spec"]
        target = workloads.get(spec["scaleTargetRef"]["name"])
        if target is None:
            yield f"{name_of(scaler)} scales what is not there"
            continue
        if "replicas" in target["spec"]:
            yield f"{name_of(target)} sets replicas beside {name_of(scaler)}"
        if not 1 <= spec["minReplicas"] < spec["maxReplicas"]:
            yield f"{name_of(scaler)} cannot scale"
        for metric in spec["metrics"]:
            if metric["type"] == "Resource":
                resource = metric["resource"]["name"]
                if resource not in container_of(target)["resources"]["requests"]:
                    yield f"{name_of(target)} requests no {resource} to scale by"
                continue
            name = metric["pods"]["metric"]["name"]
            if f'"{name}"' not in metrics:
                yield f"{name_of(scaler)}: no metric is called {name}"
            if not _queried(name, rule["seriesQuery"]):
                yield f"{name_of(scaler)}: prometheus-adapter has no rule for {name}"
        if spec.get("behavior", {}).get("scaleDown", {}).get("stabilizationWindowSeconds", 0) < 300:
            yield f"{name_of(scaler)} flaps"


def _queried(name: str, query: str) -> bool:
    [pattern] = re.findall(r'__name__=~"([^"]+)"', query)
    return re.fullmatch(pattern, name) is not None


def monitoring(world: World) -> Iterator[str]:
    """Prometheus finds every pod that has metrics under the names that the alerts know."""
    for monitor in world.all("PodMonitor"):
        [endpoint] = monitor["spec"]["podMetricsEndpoints"]
        for workload in world.workloads():
            ports_of = {each.get("name") for each in container_of(workload).get("ports", [])}
            if matches(_selector(monitor), labels_of(workload)) != ("metrics" in ports_of):
                yield f"{name_of(workload)} has metrics, or is asked for them, but not both"
            if endpoint["port"] != "metrics" or monitor["spec"]["jobLabel"] not in labels_of(
                workload
            ):
                yield f"{name_of(monitor)} asks {name_of(workload)} for something else"
    rules = yaml.safe_load((ROOT / "deploy" / "observability" / "alerts.yml").read_text())
    for each in world.all("PrometheusRule"):
        if each["spec"] != rules:
            yield f"{name_of(each)} differs from deploy/observability/alerts.yml; its head says how"
