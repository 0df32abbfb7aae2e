"""An extra brings what its noun needs: most bring no torch, and what any brings is pinned."""

import re
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]


def closure(*requirements: str) -> set[str]:
    """Canonical names of all packages that `requirements` bring on this machine."""
    reached: set[tuple[str, str]] = set()
    waiting = [Requirement(requirement) for requirement in requirements]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        # The empty extra stands for what is needed whether or not an extra is asked for.
        for extra in {"", *requirement.extras}:
            if (name, extra) in reached:
                continue
            reached.add((name, extra))
            for line in distribution(name).requires or []:
                needed = Requirement(line)
                if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                    waiting.append(needed)
    return {name for name, _ in reached}


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = [line.split("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pinned}


@pytest.mark.parametrize("extra", ["query", "playback", "gateway", "descriptor"])
def test_no_torch_comes_with(extra: str) -> None:
    assert "torch" not in closure(f"demiurge[{extra}]")


@pytest.mark.parametrize("extra", ["synth", "predictor", "train", "all"])
def test_torch_comes_with(extra: str) -> None:
    assert "torch" in closure(f"demiurge[{extra}]")


@pytest.mark.parametrize("extra", ["synth", "predictor", "playback", "gateway", "descriptor"])
def test_no_qdrant_comes_with(extra: str) -> None:
    assert not {"qdrant-client", "qdrant-edge-py"} & closure(f"demiurge[{extra}]")


@pytest.mark.parametrize("extra", ["predictor", "query", "playback", "gateway"])
def test_no_librosa_comes_with(extra: str) -> None:
    assert "librosa" not in closure(f"demiurge[{extra}]")


def test_everything_that_is_installed_is_pinned() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    brought = closure("demiurge[all]", *groups["dev"]) - {"demiurge"}
    assert brought <= pins().keys()


def test_the_tests_run_on_the_pinned_versions() -> None:
    brought = closure("demiurge[all]") - {"demiurge"}
    installed = {name: re.sub(r"\+.*", "", distribution(name).version) for name in brought}
    assert installed == {name: pins()[name] for name in brought}
