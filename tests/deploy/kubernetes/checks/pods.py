"""That pods can work: volumes, places to write, probes, stops, GPUs; and that they are guarded."""

from collections.abc import Iterator
from pathlib import PurePosixPath

from services.runtime.health import LIVENESS, READINESS
from tests.deploy.kubernetes.environment import environment_of, image_environment
from tests.deploy.kubernetes.rendering import (
    Object,
    World,
    component_of,
    container_of,
    labels_of,
    name_of,
    pod_of,
)

GPU = "nvidia.com/gpu"
# https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
ALLOWED_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim",
    "projected", "secret",
}  # fmt: skip
UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def security(world: World) -> Iterator[str]:
    """Every pod passes PodSecurity `restricted`, which its namespace enforces, and more."""
    for namespace in world.all("Namespace"):
        if (
            namespace["metadata"]["labels"].get("pod-security.kubernetes.io/enforce")
            != "restricted"
        ):
            yield f"{name_of(namespace)} does not enforce `restricted`"
    for workload in world.workloads():
        yield from (f"{name_of(workload)}: {what}" for what in _insecure(pod_of(workload)))


def _insecure(pod: Object) -> Iterator[str]:
    for host in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(host):
            yield f"{host} is the node's"
    for volume in pod.get("volumes", []):
        if kinds := volume.keys() - {"name"} - ALLOWED_VOLUMES:
            yield f"volume {volume['name']} is a {kinds}"
    around = pod.get("securityContext", {})
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        own = container.get("securityContext", {})
        both = {**around, **own}
        if both.get("runAsNonRoot") is not True or both.get("runAsUser") == 0:
            yield "may run as root"
        if both.get("seccompProfile", {}).get("type") not in {"RuntimeDefault", "Localhost"}:
            yield "has no seccomp profile"
        if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
            yield "may become more than it is"
        capabilities = own.get("capabilities", {})
        if "ALL" not in capabilities.get("drop", []) or capabilities.get("add"):
            yield "keeps capabilities"
        if own.get("procMount", "Default") != "Default" or any(
            "hostPort" in p for p in container.get("ports", [])
        ):
            yield "reaches into its node"
        if own.get("readOnlyRootFilesystem") is not True:
            yield "writes into its image"


def volumes(world: World) -> Iterator[str]:
    """Each mount has its volume and each volume its mount; what is emptied has a limit."""
    for workload in world.workloads():
        name, pod = name_of(workload), pod_of(workload)
        claims = workload["spec"].get("volumeClaimTemplates", [])
        known = [v["name"] for v in pod.get("volumes", [])] + [
            c["metadata"]["name"] for c in claims
        ]
        mounts = container_of(workload).get("volumeMounts", [])
        mounted, paths = [m["name"] for m in mounts], [m["mountPath"] for m in mounts]
        if set(mounted) != set(known) or len(set(known)) < len(known):
            yield f"{name} has volumes {sorted(known)} and mounts {sorted(mounted)}"
        if len(set(paths)) < len(paths):
            yield f"{name} mounts twice at one of {paths}"
        in_memory = 0
        for volume in pod.get("volumes", []):
            if "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]:
                yield f"{name}: volume {volume['name']} may fill the node's disk"
            elif volume.get("emptyDir", {}).get("medium") == "Memory":
                in_memory += size(volume["emptyDir"]["sizeLimit"])
        if 2 * in_memory > size(container_of(workload)["resources"]["limits"]["memory"]):
            yield f"{name} keeps files in most of its memory"


def writable(world: World) -> Iterator[str]:
    """What the images write to is a place that takes it: on disk where sounds go."""
    for workload in world.workloads():
        if component_of(workload) not in {"service", "job"}:
            continue
        environment = environment_of(world, workload)
        volumes_of = {each["name"]: each for each in pod_of(workload)["volumes"]}
        mounts = container_of(workload)["volumeMounts"]
        for variable in ("DEMIURGE_HOME", "TMPDIR", "HOME", "MPLCONFIGDIR"):
            path = PurePosixPath(environment.get(variable, image_environment()[variable]))
            above = [m for m in mounts if path.is_relative_to(m["mountPath"])]
            volume = volumes_of[above[-1]["name"]] if above else {}
            if "emptyDir" not in volume or above[-1].get("readOnly"):
                yield f"{name_of(workload)} cannot write to {variable}={path}"
            elif variable in {"DEMIURGE_HOME", "TMPDIR"} and volume["emptyDir"].get("medium"):
                yield f"{name_of(workload)} keeps {variable} in memory"
        compiled = PurePosixPath(environment["NUMBA_CACHE_DIR"])
        if any(compiled.is_relative_to(mount["mountPath"]) for mount in mounts):
            yield f"{name_of(workload)} hides what its image has compiled in {compiled}"


def probes(world: World) -> Iterator[str]:
    """Each service is asked at its health port, by names that it knows; all others by theirs."""
    asked = {"startupProbe": LIVENESS, "livenessProbe": LIVENESS, "readinessProbe": (READINESS,)}
    for workload in world.workloads():
        name, container = name_of(workload), container_of(workload)
        declared = {each.get("name"): each["containerPort"] for each in container.get("ports", [])}
        if component_of(workload) == "service":
            port = environment_of(world, workload).get("DEMIURGE_HEALTH_PORT")
            for probe, services in asked.items():
                grpc = container.get(probe, {}).get("grpc", {})
                if str(grpc.get("port")) != port or grpc.get("service", "") not in services:
                    yield f"{name}: {probe} asks {grpc}, and {services} are at port {port}"
            for wanted in ("grpc", "metrics", "health"):
                variable = {"grpc": "DEMIURGE_PORT"}.get(wanted, f"DEMIURGE_{wanted.upper()}_PORT")
                if str(declared.get(wanted)) != environment_of(world, workload).get(variable):
                    yield f"{name}: port {wanted} is not {variable}"
        elif component_of(workload) != "job":
            for probe in ("livenessProbe", "readinessProbe"):
                port = container.get(probe, {}).get("httpGet", {}).get("port")
                if port not in declared:
                    yield f"{name}: {probe} asks port {port}, which it has not"


def stops(world: World) -> Iterator[str]:
    """SIGTERM comes after clients have heard, SIGKILL after calls in flight could finish."""
    for workload in world.workloads():
        if component_of(workload) not in {"service", "proxy"}:
            continue
        hook = container_of(workload).get("lifecycle", {}).get("preStop", {})
        sleep = hook.get("sleep", {}).get("seconds", 0)
        drain = float(environment_of(world, workload).get("DEMIURGE_DRAIN_SECONDS", 0))
        grace = pod_of(workload).get("terminationGracePeriodSeconds", 30)
        if sleep < 5:
            yield f"{name_of(workload)} is told to stop while calls are still sent to it"
        if grace < sleep + drain + 5:
            yield f"{name_of(workload)} is killed after {grace} s, not {sleep} + {drain}"


def resources(world: World) -> Iterator[str]:
    """Every container says what it needs and what it may take; what is limited is not less."""
    for workload in world.workloads():
        said = container_of(workload).get("resources", {})
        requests, limits = said.get("requests", {}), said.get("limits", {})
        for resource in ("cpu", "memory"):
            if resource not in requests or resource not in limits:
                yield f"{name_of(workload)} does not say how much {resource} it needs or may take"
            elif size(requests[resource]) > size(limits[resource]):
                yield f"{name_of(workload)} needs more {resource} than it may take"


def gpus(world: World) -> Iterator[str]:
    """Whoever is given a GPU is sent where there are some, and let in; and is told to use it."""
    for workload in world.workloads():
        pod, container = pod_of(workload), container_of(workload)
        name, environment = name_of(workload), environment_of(world, workload)
        device = environment.get(f"DEMIURGE_{workload['metadata']['name'].upper()}_DEVICE", "")
        if GPU not in container["resources"]["limits"]:
            if device.startswith("cuda"):
                yield f"{name} computes on {device} and is given none"
            continue
        terms = (
            pod.get("affinity", {})
            .get("nodeAffinity", {})
            .get("requiredDuringSchedulingIgnoredDuringExecution", {})
            .get("nodeSelectorTerms", [])
        )
        if not any(e["key"] == f"{GPU}.present" for t in terms for e in t["matchExpressions"]):
            yield f"{name} may be sent to a node without a GPU"
        if not any(each.get("key") == GPU for each in pod.get("tolerations", [])):
            yield f"{name} is kept off nodes that are for GPUs alone"
        if component_of(workload) == "service" and not device.startswith("cuda"):
            yield f"{name} is given a GPU and would not miss it"
        if labels_of(workload).get("app.kubernetes.io/name") in {"query", "gateway"}:
            yield f"{name} has no use for a GPU"


def size(quantity: str | int) -> float:
    """A Kubernetes quantity as a number."""
    text = str(quantity)
    for unit, factor in UNITS.items():
        if text.endswith(unit):
            return float(text.removesuffix(unit)) * factor
    return float(text.removesuffix("m")) / 1000 if text.endswith("m") else float(text)
