from pathlib import Path

import pytest

from services.cli.importing import Rollout, read_folder
from services.errors import InvalidInputError

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
