"""Docker and the images, for whatever is tested in containers."""

import shutil
import subprocess
from collections.abc import Mapping

import pytest

from tests.deploy.building import build
from tests.deploy.stack import compose_command


@pytest.fixture(scope="session")
def docker() -> None:
    """A Docker daemon with Compose; without one, a skip that says which is missing."""
    if not shutil.which("docker"):
        pytest.skip("the docker command is not installed")
    answered = subprocess.run(["docker", "info"], capture_output=True, check=False)
    if answered.returncode:
        pytest.skip("no Docker daemon answers; DOCKER_HOST says where to look")
    if not compose_command():
        pytest.skip("Docker Compose is not installed")


@pytest.fixture(scope="session")
def images(docker: None) -> Mapping[str, str]:
    """The images of this working tree, built once: their names by noun."""
    return build()
