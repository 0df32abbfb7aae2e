"""Each check catches what it is for: a copy that is broken in one place."""

from collections.abc import Mapping

import pytest

from tests.deploy.kubernetes.broken import jobs, objects, pods, policies, settings
from tests.deploy.kubernetes.broken.mutation import Mutation
from tests.deploy.kubernetes.rendering import World
from tests.deploy.kubernetes.test_manifests import CHECKS

MUTATIONS = tuple(
    each for module in (objects, pods, settings, policies, jobs) for each in module.MUTATIONS
)
BY_NAME = {check.__name__: check for check in CHECKS}


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.what)
def test_a_broken_copy_is_caught(mutation: Mutation, worlds: Mapping[str, World]) -> None:
    broken = worlds[mutation.overlay].copy()
    mutation.apply(broken)
    assert list(BY_NAME[mutation.check](broken)), f"nobody noticed that {mutation.what}"


def test_every_check_has_something_that_it_catches() -> None:
    assert {mutation.check for mutation in MUTATIONS} == set(BY_NAME)
