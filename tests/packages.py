"""Packages that bring predictors, as anybody may write and install them."""

import subprocess
import sys
from pathlib import Path

WALKER = '''
import numpy as np

from services.predictor.port import Predictor


class Walker(Predictor):
    """Goes on from the last frame by steps that the seed draws."""

    architecture = "RandomWalk"
    window_frames = 4
    feature_names = tuple(f"mfcc{number}" for number in range(39))
    sample_rate_hertz = 44100
    hop_length_samples = 1024
    stochastic = True

    def _continue(self, window, steps, seed, temperature, checkpoint):
        checkpoint()
        drawn = np.random.default_rng(seed).standard_normal((steps, window.shape[1]))
        return (window[-1] + temperature * drawn.cumsum(axis=0)).astype(np.float32)
'''
PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "{name}"
version = "{version}"

[project.entry-points."demiurge.predictors"]
{entries}

[tool.hatch.build.targets.wheel]
only-include = ["{module}.py"]
"""


def unpacked(
    folder: Path,
    name: str,
    entries: dict[str, str],
    source: str = WALKER,
    *,
    version: str = "1.2.0",
) -> None:
    """The package as an installation leaves it in `folder`; `entries` are predictors by id."""
    module = name.replace("-", "_")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{module}.py").write_text(source)
    about = folder / f"{module}-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    listed = "".join(f"{key} = {value}\n" for key, value in entries.items())
    (about / "entry_points.txt").write_text(f"[demiurge.predictors]\n{listed}")


def built_and_installed(
    project: Path, folder: Path, name: str, entries: dict[str, str], source: str = WALKER
) -> None:
    """The package written at `project`, built, and installed into `folder` by pip."""
    module = name.replace("-", "_")
    project.mkdir(parents=True)
    listed = "\n".join(f'{key} = "{value}"' for key, value in entries.items())
    (project / f"{module}.py").write_text(source)
    (project / "pyproject.toml").write_text(
        PROJECT.format(name=name, version="1.2.0", entries=listed, module=module)
    )
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"),
            *("--no-build-isolation", "--disable-pip-version-check", "--no-index"),
            *("--target", folder, project),
        ],
        check=True,
        capture_output=True,
        text=True,
    )
