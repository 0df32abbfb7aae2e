"""Every manifest is what several versions of Kubernetes say that it is."""

from collections.abc import Callable, Mapping
from copy import deepcopy

import pytest

from tests.deploy.kubernetes.rendering import TARGETS, Object, container_of, pod_of
from tests.deploy.kubernetes.schemas import VERSIONS, problems


@pytest.mark.parametrize("target", TARGETS)
def test_manifests_fit_the_schemas(target: str, targets: Mapping[str, list[Object]]) -> None:
    assert targets[target]
    found = [each for v in VERSIONS for thing in targets[target] for each in problems(thing, v)]
    assert found == []


def test_the_oldest_and_the_newest_version_are_asked() -> None:
    assert VERSIONS[0] == "1.31"
    assert len(VERSIONS) > 5


@pytest.mark.parametrize(
    "break_it",
    [
        lambda synth: pod_of(synth).update(terminationGracePeriod=60),
        lambda synth: synth["spec"].update(replicas="two"),
        lambda synth: synth["spec"].pop("selector"),
        lambda synth: container_of(synth)["readinessProbe"]["grpc"].update(port="health"),
        lambda synth: container_of(synth).update(port=50051),
        lambda synth: container_of(synth)["lifecycle"]["preStop"]["sleep"].update(second=1),
    ],
    ids=["unknown", "type", "missing", "probe", "container", "deep"],
)
def test_what_no_version_knows_is_found_by_each(
    break_it: Callable[[Object], object], targets: Mapping[str, list[Object]]
) -> None:
    [synth] = [
        deepcopy(each)
        for each in targets["base"]
        if (each["kind"], each["metadata"]["name"]) == ("Deployment", "synth")
    ]
    break_it(synth)
    assert {version for version in VERSIONS if list(problems(synth, version))} == set(VERSIONS)
