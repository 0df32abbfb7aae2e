"""`demiurge export`: a model that is given away sings elsewhere as it did at home."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from services.runtime.model_store import ModelStore
from services.runtime.object_store.folder import FolderStore
from tests.conftest import MELGAN, UNAGAN
from tests.e2e.workspace import Workspace

CALL = ("generate", "--unagan", UNAGAN, "--melgan", MELGAN, "--duration", "0.5")


@pytest.fixture
def home(tmp_path: Path, trained_models: Path) -> Workspace:
    folder = tmp_path / "home"
    folder.mkdir()
    store = shutil.copytree(trained_models, tmp_path / "store")
    return Workspace(folder, {"DEMIURGE_STORE": str(store)})


def sung(place: Workspace) -> NDArray[np.float64]:
    place.output(*CALL, "--out", "sung")
    samples, _ = soundfile.read(place.folder / "sung" / "seed-0-0.5s.wav")
    return samples


def given_away(home: Workspace, folder: Path, *options: str) -> Workspace:
    """Another home, to which both models were brought."""
    there = Workspace(folder)
    folder.mkdir()
    for family, model in (("unagan", UNAGAN), ("melgan", MELGAN)):
        path = home.output("export", family, model, "--out", folder / "given", *options)
        assert there.output("import", path) == f"{family} {model}@2"
    return there


def test_an_exported_model_sings_the_same_samples(home: Workspace, tmp_path: Path) -> None:
    models = ModelStore(FolderStore(Path(home.settings["DEMIURGE_STORE"])))
    judged = models.describe(
        models.find("melgan", MELGAN), figures={"mel_error": 0.5}, card="# voice", pictures={}
    )
    there = given_away(home, tmp_path / "there")
    np.testing.assert_array_equal(sung(there), sung(home))
    found = ModelStore(FolderStore(there.home / "store")).find("melgan", MELGAN)
    assert found.figures == judged.figures
    assert found.weights_sha256 == judged.weights_sha256


def test_half_the_bits_are_half_the_size_and_nearly_the_sound(
    home: Workspace, tmp_path: Path
) -> None:
    there = given_away(home, tmp_path / "there", "--half")
    ours, theirs = (
        ModelStore(FolderStore(root)).find("unagan", UNAGAN)
        for root in (Path(home.settings["DEMIURGE_STORE"]), there.home / "store")
    )
    assert theirs.size_bytes < 0.75 * ours.size_bytes
    np.testing.assert_allclose(sung(there), sung(home), atol=0.01)


def test_a_model_that_is_not_there_is_named(home: Workspace) -> None:
    assert "nobody" in home.refusal("export", "melgan", "nobody")
