"""What each image says of itself to whoever runs it."""

import json
import re
import tomllib
from collections.abc import Mapping
from typing import Any

import pytest

from services.runtime.settings import NOUNS
from tests.deploy.stack import ROOT, docker

pytestmark = [pytest.mark.containers, pytest.mark.parametrize("noun", NOUNS)]
LABEL = "org.opencontainers.image"


def configuration(image: str) -> dict[str, Any]:
    [found] = json.loads(docker("image", "inspect", image))
    return dict(found["Config"])


def test_its_labels_are_those_of_the_project(images: Mapping[str, str], noun: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    labels = configuration(images[noun])["Labels"]
    assert labels[f"{LABEL}.title"] == f"demiurge {noun}"
    assert noun in labels[f"{LABEL}.description"]
    assert labels[f"{LABEL}.version"] == project["version"]
    assert labels[f"{LABEL}.licenses"] == project["license"]
    assert re.fullmatch("[0-9a-f]{40}", labels[f"{LABEL}.revision"])
    assert f"{LABEL}.source" in labels


def test_it_serves_its_noun_as_nobody_in_particular(images: Mapping[str, str], noun: str) -> None:
    found = configuration(images[noun])
    assert found["User"] == "10001:10001"
    assert found["Entrypoint"] == ["demiurge"]
    assert found["Cmd"] == ["serve", noun]
    assert found["StopSignal"] == "SIGTERM"
    assert found["Healthcheck"]["Test"] == ["CMD", "demiurge", "health"]
    assert set(found["ExposedPorts"]) == {"50050/tcp", "50051/tcp", "9464/tcp"}
    assert {"/scratch", "/var/lib/demiurge"} <= set(found["Volumes"])


def test_what_its_environment_says_is_what_stacks_count_on(
    images: Mapping[str, str], noun: str
) -> None:
    environment = dict(line.split("=", 1) for line in configuration(images[noun])["Env"])
    assert {name: value for name, value in environment.items() if name.startswith("DEMIURGE")} == {
        "DEMIURGE_BIND_ADDRESS": "0.0.0.0",  # noqa: S104
        "DEMIURGE_PORT": "50051",
        "DEMIURGE_HEALTH_PORT": "50050",
        "DEMIURGE_METRICS_PORT": "9464",
        "DEMIURGE_HOME": "/var/lib/demiurge",
    }
    assert environment["TMPDIR"] == "/scratch"


def test_no_step_of_its_making_holds_a_secret(images: Mapping[str, str], noun: str) -> None:
    steps = docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", images[noun])
    telling = re.compile(r"(?i)password|passwd|secret|api[-_]?key|token|https?://[^/\s]*@")
    assert not telling.findall(steps)
