"""What a judgement leaves in the store, as the doctor and a deletion meet it."""

import shutil
from pathlib import Path

import pytest

from services.cli.progress import Progress
from services.cli.stored import StoreCheck
from services.errors import NotFoundError
from services.runtime.model_store import ModelStore, ModelVersion
from services.runtime.object_store.folder import FolderStore

FOLDER = "models/melgan/a/1"


def judged(models: ModelStore) -> ModelVersion:
    version = models.save("melgan", "a", 1, weights=b"w", config={}, card="# a", best=True)
    return models.describe(
        version,
        figures={"stft_distance": 0.5},
        card="# a, judged",
        pictures={"spectrogram.png": b"picture"},
    )


@pytest.mark.parametrize("name", ["figures.json", "card.md", "spectrogram.png"])
def test_the_doctor_finds_what_is_damaged_of_a_judgement_and_the_model_lives_on(
    tmp_path: Path, name: str
) -> None:
    store = FolderStore(tmp_path)
    models = ModelStore(store)
    version = judged(models)

    def findings() -> list[str]:
        check = StoreCheck(store, Progress(), mend=True)
        return [finding.found for finding in [*check.objects(), *check.references()]]

    assert all("not what was stored" not in each for each in findings())
    (tmp_path / FOLDER / name).write_bytes(b"{}")
    assert any(each.startswith(f"{FOLDER}/{name}: its bytes") for each in findings())
    # Set aside, so that nobody meets it, and made again by the next judgement.
    assert not store.exists(f"{FOLDER}/{name}")
    assert models.read_weights(models.find("melgan", "a")) == b"w"
    models.describe(
        version, figures=version.figures, card="# a", pictures={"spectrogram.png": b"picture"}
    )
    assert models.find("melgan", "a") == version


def test_a_judgement_goes_with_its_model(tmp_path: Path) -> None:
    models = ModelStore(FolderStore(tmp_path))
    judged(models)
    shutil.rmtree(tmp_path / "models" / "melgan" / "a")
    assert list(models.list("melgan")) == []
    with pytest.raises(NotFoundError):
        models.find("melgan", "a@1")
