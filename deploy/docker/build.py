"""Builds the image of each noun as docker-compose.yml has it: `make images`.

Where torch is installed as a build for CPUs, the images get the same; elsewhere what the package
index has, which on Linux is gigabytes for CUDA.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from platform import machine

from services.runtime.settings import NOUNS

ROOT = Path(__file__).parents[2]
WHEELS = ROOT / "deploy" / "docker" / "wheels"


def build() -> None:
    """Builds them, or finds them built, labelled with the commit that the tree stands at."""
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, check=False)
    compose = ["docker", "compose"]
    if subprocess.run([*compose, "version"], capture_output=True, check=False).returncode:
        compose = ["docker-compose"]
    with torch_as_installed_here():
        subprocess.run(
            [*compose, "build", "--quiet", *NOUNS],
            cwd=ROOT,
            env=os.environ | {"IMAGE_REVISION": git.stdout.decode().strip()},
            check=True,
        )


@contextmanager
def torch_as_installed_here() -> Iterator[None]:
    """The CPU build of torch beside the Dockerfile for as long as it takes, if it is wanted."""
    if not version("torch").endswith("+cpu") or any(WHEELS.glob("torch-*.whl")):
        yield
        return
    platform = f"manylinux_2_28_{machine()}"
    fit = ("--python-version", "3.11", "--platform", platform, "--only-binary=:all:")
    pip = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps")
    where = ("--dest", str(WHEELS), "--constraint", str(ROOT / "constraints.txt"))
    try:
        subprocess.run([*pip, *where, *fit, f"torch=={version('torch')}"], check=True)
        yield
    finally:
        for wheel in WHEELS.glob("torch-*.whl"):
            wheel.unlink()


if __name__ == "__main__":
    build()
