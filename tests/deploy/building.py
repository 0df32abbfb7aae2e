"""The images of this working tree, built for its tests: `make images`."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from platform import machine

from tests.deploy.stack import ROOT, compose_command, run

NOUNS = ("synth", "descriptor", "predictor", "query", "playback", "gateway")
WHEELS = ROOT / "deploy" / "docker" / "wheels"
BUILD_SECONDS = 900


def build() -> Mapping[str, str]:
    """Builds them, or finds them built: their names by noun."""
    names = {noun: f"demiurge/{noun}:0.1.0" for noun in NOUNS}
    lines = ["services:"]
    for noun, image in names.items():
        build = f"context: {ROOT}, dockerfile: deploy/docker/Dockerfile, args: {{NOUN: {noun}}}"
        lines += [f"  {noun}:", f"    image: {image}", f"    build: {{{build}}}"]
    with torch_as_installed_here():
        subprocess.run(
            [*compose_command(), "--project-name", "images", "--file", "-", "build", "--quiet"],
            input="\n".join(lines),
            check=True,
            text=True,
            timeout=BUILD_SECONDS,
        )
    return names


@contextmanager
def torch_as_installed_here() -> Iterator[None]:
    """Lets images have the CPU build of torch where the tests run with one, to spare gigabytes."""
    if not version("torch").endswith("+cpu") or any(WHEELS.glob("torch-*.whl")):
        yield
        return
    where = ("--dest", str(WHEELS), "--constraint", "constraints.txt")
    platform = f"manylinux_2_28_{machine()}"
    fit = ("--python-version", "3.11", "--platform", platform, "--only-binary=:all:")
    pip = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps")
    run([*pip, *where, *fit, f"torch=={version('torch')}"], timeout=300)
    try:
        yield
    finally:
        for wheel in WHEELS.glob("torch-*.whl"):
            wheel.unlink()


if __name__ == "__main__":
    build()
