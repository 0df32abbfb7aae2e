"""The manifests fit each other and the code."""

from collections.abc import Callable, Iterator, Mapping

import pytest

from tests.deploy.kubernetes.checks import jobs, objects, pods, policies, settings
from tests.deploy.kubernetes.rendering import KUBERNETES, TARGETS, Object, World

Check = Callable[[World], Iterator[str]]
CHECKS: tuple[Check, ...] = (
    objects.selectors,
    objects.ports,
    objects.nouns,
    objects.images,
    objects.accounts,
    objects.budgets,
    objects.namespaces,
    objects.scaling,
    objects.monitoring,
    pods.security,
    pods.volumes,
    pods.writable,
    pods.probes,
    pods.stops,
    pods.resources,
    pods.gpus,
    settings.settings,
    settings.addresses,
    settings.references,
    settings.files,
    settings.certificates,
    policies.policies,
    policies.bounds,
    jobs.jobs,
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("overlay", ["local", "local-tls", "gpu-cluster"])
def test_what_is_deployed_fits(check: Check, overlay: str, worlds: Mapping[str, World]) -> None:
    assert list(check(worlds[overlay])) == []


def test_every_component_is_in_an_overlay_or_a_job() -> None:
    used = "".join((KUBERNETES / target / "kustomization.yaml").read_text() for target in TARGETS)
    components = {path.name for path in (KUBERNETES / "components").iterdir()}
    assert {name for name in components if f"components/{name}\n" not in used} == set()


def test_no_secret_is_in_the_repository(targets: Mapping[str, list[Object]]) -> None:
    made = {
        target for target, found in targets.items() if any(o["kind"] == "Secret" for o in found)
    }
    assert made == {"overlays/local", "overlays/local-tls"}
    assert (KUBERNETES / "overlays/local/.gitignore").read_text() == "secrets/\n"
