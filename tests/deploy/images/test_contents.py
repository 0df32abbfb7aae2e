"""What is in each image, and what is not: asked inside one container each."""

import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from services.runtime.settings import NOUNS
from tests.deploy.images.container import output, refused
from tests.deploy.stack import ROOT

pytestmark = [pytest.mark.containers, pytest.mark.parametrize("noun", NOUNS)]
TRAINERS = ("synth", "predictor")
INSPECTION = Path(__file__).with_name("inspection.py")

Found = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="module")
def found(images: Mapping[str, str]) -> Found:
    @cache
    def inspected(noun: str) -> dict[str, Any]:
        code = INSPECTION.read_text()
        return dict(json.loads(output(images[noun], "-c", code, noun, entrypoint="python")))

    return inspected


def test_it_runs_as_a_user_without_a_name_in_any_other_group(found: Found, noun: str) -> None:
    assert set(found(noun)["identity"]) == {10001}


def test_nothing_in_it_compiles_or_installs(found: Found, noun: str) -> None:
    assert not found(noun)["programs"]
    assert not {"pip", "ensurepip"} & set(found(noun)["modules"])


def test_a_noun_has_its_own_libraries_and_no_others(found: Found, noun: str) -> None:
    own = {
        "descriptor": {"librosa"},
        "query": {"qdrant_client", "qdrant_edge"},
        "playback": {"matplotlib"},
        "gateway": set(),
    }
    trainer = {"torch", "librosa", "matplotlib"}
    assert set(found(noun)["modules"]) == own.get(noun, trainer)


def test_what_its_extra_asks_for_is_there(found: Found, noun: str) -> None:
    assert not found(noun)["lacking"]


def test_every_version_is_the_pinned_one(found: Found, noun: str) -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if "==" in line)
    pinned = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pins.items()}
    versions = {name: version.split("+")[0] for name, version in found(noun)["versions"].items()}
    del versions["demiurge"]
    # What torch's build for CUDA brings is pinned by torch itself.
    cuda = re.compile("nvidia-.*|triton|cuda-.*")
    assert {name: version for name, version in versions.items() if not cuda.fullmatch(name)} == {
        name: pinned.get(name) for name in versions if not cuda.fullmatch(name)
    }


def test_only_root_could_change_what_it_runs(found: Found, noun: str) -> None:
    assert not found(noun)["anyone"]
    assert not found(noun)["owned"]
    assert not found(noun)["setuid_of_ours"]


def test_no_tests_secrets_or_caches_came_along(found: Found, noun: str) -> None:
    assert not found(noun)["strange"]
    assert not found(noun)["caches"]


def test_only_its_volumes_can_be_written(images: Mapping[str, str], noun: str) -> None:
    volumes = "/scratch /var/lib/demiurge /tmp"
    output(images[noun], "-ec", f"for d in {volumes}; do touch $d/it; done", entrypoint="sh")
    said = refused(images[noun], "-c", "touch /opt/demiurge/it", entrypoint="sh")
    assert "Read-only file system" in said
