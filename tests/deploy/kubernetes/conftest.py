"""The manifests, rendered once a session."""

from collections.abc import Mapping

import pytest

from tests.deploy.kubernetes.rendering import OVERLAYS, Object, World, rendered


@pytest.fixture(scope="session")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, list[Object]]:
    """The objects of every base, overlay and job."""
    return rendered(tmp_path_factory.mktemp("kubernetes"))


@pytest.fixture(scope="session")
def worlds(targets: Mapping[str, list[Object]]) -> Mapping[str, World]:
    """What would be in a cluster, by the overlay's name."""
    return {overlay.partition("/")[2]: World.of(overlay, targets) for overlay in OVERLAYS}
