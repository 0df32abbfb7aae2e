"""From recordings to a piece through the published address, as a composer on the host does it."""

import hashlib
import json
from pathlib import Path

import pytest

from tests.deploy.stack import ROOT, Stack
from tests.e2e.workspace import Workspace

pytestmark = pytest.mark.containers
CORPUS = ROOT / "examples" / "corpus" / "prediction"
# The models of examples/models, and a predictor too small to be good.
MODELS = ("--unagan", "4rz8nawd", "--melgan", "d24itc6s", "--predictor", "follower")
SIZE = ("--files", "3", "--file-duration", "1", "--duration", "2", "--seed", "5")


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "piece.wav").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def piece(stack: Stack) -> Path:
    """A piece of the stack."""
    folder = stack.folder / "piece"
    stack.demiurge("run", *MODELS, *SIZE, "--prediction", str(CORPUS), "--out", str(folder))
    return folder


def test_recordings_become_a_piece(piece: Path) -> None:
    edits = json.loads((piece / "edit_list.json").read_bytes())
    assert edits
    assert (piece / "piece.wav").stat().st_size > 2 * 44_100 * 2


def test_another_stack_makes_the_same_bytes(piece: Path, model_files: Path, tmp_path: Path) -> None:
    alone = Workspace(tmp_path)
    for best in sorted(model_files.glob("models/*/*/best.json")):
        if best.parts[-2] in MODELS:
            alone.output("import", best.parent)
    folder = tmp_path / "piece"
    alone.output("run", *MODELS, *SIZE, "--prediction", CORPUS, "--out", folder)
    assert digest(folder) == digest(piece)
