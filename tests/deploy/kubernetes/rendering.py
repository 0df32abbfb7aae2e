"""The manifests as a cluster would get them: `kubectl kustomize` of a copy with its own secrets."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]

ROOT = Path(__file__).parents[3]
KUBERNETES = ROOT / "deploy" / "kubernetes"
KUBECTL = Path(sys.executable).parent / "kubectl"
OVERLAYS = ("overlays/local", "overlays/local-tls", "overlays/gpu-cluster")
JOBS = tuple(sorted(f"jobs/{path.name}" for path in (KUBERNETES / "jobs").iterdir()))
CLUSTER_JOBS = tuple(f"overlays/gpu-cluster/{job}" for job in JOBS)
TARGETS = ("base", *OVERLAYS, *JOBS, *CLUSTER_JOBS)
LOCAL_SECRETS = ("token", "s3-access-key", "s3-secret-key", "qdrant-api-key")
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_CREATED = re.compile(r"create secret generic (\S+)((?: --from-file=\S+)+)")


def rendered(folder: Path) -> dict[str, list[Object]]:
    """The objects of every target, by its path below deploy/kubernetes."""
    copy = folder / "deploy"
    for part in ("kubernetes", "envoy"):
        # Whoever runs the local overlay has secrets there, which are not for tests.
        own = shutil.ignore_patterns("secrets")
        shutil.copytree(ROOT / "deploy" / part, copy / part, ignore=own)
    secrets = copy / "kubernetes" / "overlays" / "local" / "secrets"
    secrets.mkdir()
    for name in LOCAL_SECRETS:
        (secrets / name).write_text("0123456789abcdef")
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda target: _objects(copy / "kubernetes" / target), TARGETS)
        return dict(zip(TARGETS, found, strict=True))


def _objects(folder: Path) -> list[Object]:
    command = [str(KUBECTL), "kustomize", str(folder)]
    made = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert made.returncode == 0, made.stderr
    assert "deprecated" not in made.stderr.lower(), made.stderr
    return [each for each in yaml.load_all(made.stdout, Loader=_LOADER) if each]


@dataclass
class World:
    """All that is in a cluster: one overlay, and every job beside it."""

    objects: list[Object]
    promised: Mapping[str, frozenset[str]]
    """Secrets that the user makes, as the overlay says: their keys by name."""

    @classmethod
    def of(cls, overlay: str, targets: Mapping[str, list[Object]]) -> "World":
        """The world of that overlay."""
        text = (KUBERNETES / overlay / "kustomization.yaml").read_text()
        promised = {
            name: frozenset(re.findall(r"--from-file=(\S+)", files))
            for name, files in _CREATED.findall(text)
        }
        jobs = CLUSTER_JOBS if overlay.endswith("gpu-cluster") else JOBS
        return cls([each for part in (overlay, *jobs) for each in targets[part]], promised)

    def copy(self) -> "World":
        """One to break."""
        return World(deepcopy(self.objects), self.promised)

    def all(self, *kinds: str) -> Iterator[Object]:
        """Every object of these kinds."""
        return (each for each in self.objects if each["kind"] in kinds)

    def one(self, kind: str, name: str) -> Object:
        """The object of that kind and name, before Kustomize gave it a hash."""
        [found] = [each for each in self.all(kind) if _unhashed(each) == name]
        return found

    def remove(self, kind: str, name: str) -> None:
        """Takes it away."""
        self.objects.remove(self.one(kind, name))

    def workloads(self) -> Iterator[Object]:
        """Whatever makes pods."""
        return self.all("Deployment", "StatefulSet", "DaemonSet", "Job")

    def services(self) -> Iterator[Object]:
        """The Deployments and StatefulSets that run a noun."""
        return (each for each in self.workloads() if component_of(each) == "service")


def name_of(thing: Object) -> str:
    """kind/name, for what is said about it."""
    return f"{thing['kind']}/{thing['metadata']['name']}"


def _unhashed(thing: Object) -> str:
    name: str = thing["metadata"]["name"]
    return re.sub(r"-[0-9a-z]{10}$", "", name) if thing["kind"] == "ConfigMap" else name


def pod_of(workload: Object) -> Object:
    """The pod's spec."""
    spec: Object = workload["spec"]["template"]["spec"]
    return spec


def container_of(workload: Object) -> Object:
    """Its only container."""
    [container] = pod_of(workload)["containers"]
    return container  # type: ignore[no-any-return]


def labels_of(workload: Object) -> dict[str, str]:
    """The labels of its pods."""
    labels: dict[str, str] = workload["spec"]["template"]["metadata"].get("labels", {})
    return labels


def component_of(workload: Object) -> str:
    """What part of the whole its pods are: service, proxy, store or job."""
    return labels_of(workload).get("app.kubernetes.io/component", "")


def matches(selector: Object | None, labels: Mapping[str, str]) -> bool:
    """Whether a label selector takes these; an empty one takes all, none takes nothing."""
    if selector is None:
        return False
    if not {"matchLabels", "matchExpressions"} & selector.keys() and selector:
        # A Service's selector is its labels themselves.
        selector = {"matchLabels": selector}
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    for each in selector.get("matchExpressions", []):
        value = labels.get(each["key"])
        held = {
            "In": value in each.get("values", []),
            "NotIn": value not in each.get("values", []),
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }
        if not held[each["operator"]]:
            return False
    return True
