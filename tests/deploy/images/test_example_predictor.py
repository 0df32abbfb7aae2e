"""The predictor of examples/predictor as an image of its own keeps the contract of predictors."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.images.container import running
from tests.deploy.stack import ROOT, compose_command

pytestmark = [pytest.mark.containers, pytest.mark.slow]
IMAGE = "demiurge/example-predictor:0.1.0"


def test_it_conforms(docker: None) -> None:
    build = f"context: '{ROOT}', dockerfile: examples/predictor/Dockerfile"
    subprocess.run(
        [*compose_command(), "--project-name", "images", "--file", "-", "build", "--quiet"],
        input=f"services: {{example: {{image: '{IMAGE}', build: {{{build}}}}}}}",
        check=True,
        text=True,
        timeout=600,
    )
    with running(IMAGE, options=("--publish", "127.0.0.1::50061")) as container:
        container.wait_until("healthy")
        demiurge = Path(sys.executable).parent / "demiurge"
        command = [demiurge, "conformance", "predictor", container.address(50061)]
        held = subprocess.run(command, check=False, capture_output=True, text=True)
        assert held.returncode == 0, held.stdout + held.stderr
        container.signal("TERM")
        assert container.end() == 0
