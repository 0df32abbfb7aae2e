from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.cli.importing import Rollout, read_folder
from services.cli.main import app
from services.errors import CorruptObjectError, InvalidInputError
from services.runtime.model_store import ModelStore
from services.runtime.object_store.folder import FolderStore

GOLDEN = Path(__file__).parents[2] / "golden"
FAMILIES = {
    "melgan/gru": "melgan",
    "melgan/original": "melgan",
    "unagan": "unagan",
    "predictor/LSTM": "predictor",
    "predictor/LSTMEncoderDecoderModel": "predictor",
    "predictor/TransformerEncoderOnlyModel": "predictor",
    "predictor/TransformerModel": "predictor",
}


@pytest.mark.parametrize("folder", FAMILIES)
def test_a_published_folder_tells_its_family(folder: str) -> None:
    imported = read_folder(GOLDEN / folder)
    assert imported.family == FAMILIES[folder]
    assert imported.weights
    assert imported.config


def test_the_best_checkpoint_goes_before_the_last_unless_another_is_chosen() -> None:
    folder = GOLDEN / "melgan" / "gru"
    assert read_folder(folder).weights == read_folder(folder, "best_netG.pt").weights
    # The same weights here, saved under names that DataParallel gives.
    assert read_folder(folder, "netG.pt").weights == read_folder(folder).weights


def test_a_rollout_is_kept_with_the_model() -> None:
    folder = GOLDEN / "predictor" / "TransformerEncoderOnlyModel"
    assert read_folder(folder).config["rollout"] == "sliding"
    assert read_folder(folder, rollout=Rollout.PUBLISHED).config["rollout"] == "published"


def test_a_checkpoint_that_is_not_there_is_named() -> None:
    with pytest.raises(InvalidInputError, match=r"best\.ckpt"):
        read_folder(GOLDEN / "predictor" / "LSTM", "best.ckpt")


def test_of_several_checkpoints_one_must_be_chosen(tmp_path: Path) -> None:
    for name in ("epoch=1.ckpt", "epoch=2.ckpt"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(InvalidInputError, match=r"--checkpoint \(epoch=1.ckpt, epoch=2.ckpt\)"):
        read_folder(tmp_path)


@pytest.mark.parametrize("missing", ["args.yml"])
def test_what_belongs_to_a_checkpoint_is_asked_for(tmp_path: Path, missing: str) -> None:
    (tmp_path / "netG.pt").write_bytes(b"")
    with pytest.raises(InvalidInputError, match=missing):
        read_folder(tmp_path)


CONFIGS = {
    "melgan": {"family": "melgan"},
    "unagan": {"family": "unagan"},
    "predictor": {"feature_names": ["mfcc0"]},
}


def saved(folder: Path, family: str) -> Path:
    """A store's folder of a model of three steps, the second of which is the best."""
    models = ModelStore(FolderStore(folder))
    for step in (9, 10, 11):
        version = models.save(
            family,
            "mine",
            step,
            weights=b"weights %d" % step,
            config=CONFIGS[family] | {"figures": {"error": step}},
            card=f"step {step}",
            best=step == 10,
        )
        if step != 11:
            models.describe(
                version,
                figures={"stft_distance": step / 8, "frechet_items": 16.0},
                card=f"step {step}, judged",
                pictures={"spectrogram.png": b"picture %d" % step},
            )
    return folder / "models" / family / "mine"


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize("family", CONFIGS)
def test_a_model_of_another_store_is_copied_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    theirs, ours = saved(tmp_path / "laptop", family), tmp_path / "lab"
    monkeypatch.setenv("DEMIURGE_STORE", str(ours))
    # Again is harmless.
    for _ in range(2):
        done = CliRunner().invoke(app, ["import", str(theirs)])
        assert done.output == f"{family} mine@10\n"
    assert contents(ours / "models" / family / "mine") == contents(theirs)
    assert ModelStore(FolderStore(ours)).find(family, "mine").figures["stft_distance"] == 10 / 8
    done = CliRunner().invoke(app, ["import", str(theirs), "--id", "renamed"])
    assert done.output == f"{family} renamed@10\n"


def test_a_model_of_another_store_that_is_damaged_is_not_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, ours = saved(tmp_path / "laptop", "melgan"), tmp_path / "lab"
    monkeypatch.setenv("DEMIURGE_STORE", str(ours))
    (theirs / "11" / "model.safetensors").write_bytes(b"other weights")
    done = CliRunner().invoke(app, ["import", str(theirs)])
    assert isinstance(done.exception, CorruptObjectError)
    assert "11/model.safetensors" in done.exception.message
    assert not list(ours.rglob("config.json"))


def test_a_model_of_another_store_that_lacks_its_best_step_is_named(tmp_path: Path) -> None:
    theirs = saved(tmp_path / "laptop", "melgan")
    (theirs / "10" / "config.json").unlink()
    done = CliRunner().invoke(app, ["import", str(theirs)])
    assert isinstance(done.exception, InvalidInputError)
    assert f"{theirs} lacks its best step, 10" in done.exception.message


def test_a_folder_of_no_model_hears_what_would_be_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"holds no model: neither netG\.pt, .*best\.json"):
        read_folder(tmp_path)
