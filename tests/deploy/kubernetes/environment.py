"""What a process finds in its environment: the image's variables, the ConfigMaps', its own."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from tests.deploy.kubernetes.rendering import ROOT, Object, World, container_of

_ENV = re.compile(r"^ENV ((?:.*\\\n)*.*)$", re.MULTILINE)


def image_environment() -> dict[str, str]:
    """What deploy/docker/Dockerfile sets in every image."""
    text = (ROOT / "deploy" / "docker" / "Dockerfile").read_text()
    words = " ".join(_ENV.findall(text)).replace("\\\n", " ").split()
    return dict(word.split("=", 1) for word in words)


def environment_of(world: World, workload: Object) -> dict[str, str]:
    """The variables of its container, where references that lead nowhere are left out."""
    container = container_of(workload)
    found = image_environment() if "demiurge/" in container["image"] else {}
    for source in container.get("envFrom", []):
        found |= _data(world, source["configMapRef"]["name"])
    for variable in container.get("env", []):
        reference = variable.get("valueFrom", {})
        if "value" in variable:
            found[variable["name"]] = variable["value"]
        elif "resourceFieldRef" in reference:
            limit, resource = reference["resourceFieldRef"]["resource"].split(".")
            found[variable["name"]] = str(container["resources"][limit][resource])
        elif "configMapKeyRef" in reference:
            key = reference["configMapKeyRef"]
            found[variable["name"]] = _data(world, key["name"]).get(key["key"], "")
    return found


def _data(world: World, name: str) -> Mapping[str, str]:
    maps = (each for each in world.all("ConfigMap") if each["metadata"]["name"] == name)
    return next((each.get("data", {}) for each in maps), {})


@contextmanager
def inside(environment: Mapping[str, str]) -> Iterator[None]:
    """Settings are read from there meanwhile."""
    before = {key: value for key, value in os.environ.items() if key.startswith("DEMIURGE_")}
    for key in before:
        del os.environ[key]
    ours = {key: value for key, value in environment.items() if key.startswith("DEMIURGE_")}
    os.environ.update(ours)
    try:
        yield
    finally:
        for key in ours:
            del os.environ[key]
        os.environ.update(before)
