"""Docker, the images and a stack of containers, for whatever is tested in them."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from services.runtime.settings import NOUNS
from tests.deploy.stack import ROOT, Stack, compose_command


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
    subprocess.run([sys.executable, ROOT / "deploy/docker/build.py"], check=True, timeout=900)
    return {noun: f"demiurge/{noun}:0.1.0" for noun in NOUNS}


@pytest.fixture(scope="session")
def model_files(trained_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to import from: narrow models that are fast, and those of examples/models."""
    folder = tmp_path_factory.mktemp("files")
    for root in (trained_models, ROOT / "examples"):
        shutil.copytree(root / "models", folder / "models", dirs_exist_ok=True)
    # Read by the user of the containers; that no folder above lets others in, Docker does not mind.
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


OpenContainers = Callable[..., Stack]


@pytest.fixture(scope="session")
def open_containers(
    docker: None,
    model_files: Path,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> OpenContainers:
    """Makes a Stack that is not up yet, keywords being Stack's.

    Its images are those of this working tree, unless DEMIURGE_TEST_IMAGES names the prefix of
    others, which are there.
    """

    def opened(*, settings: Mapping[str, str] | None = None, **keywords: Any) -> Stack:
        given = {"FILES_FOLDER": str(model_files), **(settings or {})}
        prefix = os.environ.get("DEMIURGE_TEST_IMAGES")
        if prefix:
            given["IMAGE_PREFIX"] = prefix
        else:
            request.getfixturevalue("images")
        stack = Stack(tmp_path_factory.mktemp("stack"), settings=given, **keywords)
        if not prefix:
            stack.compose("build", "--quiet", "minio", "envoy")
        return stack

    return opened


@pytest.fixture(scope="session")
def stack(open_containers: OpenContainers) -> Iterator[Stack]:
    """Everything up for as long as tests run, with all models of `model_files` in its store.

    Whoever breaks something mends it, and waits for it by `stack.wait()`.
    """
    with open_containers() as stack:
        stack.import_models()
        yield stack
