"""W&B that nobody answers for: a training ends with its model stored, and says one line of it."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from services.runtime.model_store import ModelStore
from services.runtime.object_store.folder import FolderStore
from tests.conftest import sound
from tests.e2e.processes import free_port
from tests.e2e.workspace import Workspace

SMALL = ("--steps", "4", "--window-size", "5", "--hidden-size", "4", "--num-layers", "1")

pytestmark = pytest.mark.slow


@contextmanager
def nobody() -> Iterator[int]:
    """A port at which connections are refused."""
    yield free_port()


@contextmanager
def silence() -> Iterator[int]:
    """A port at which connections are taken, and nothing is answered."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("there", [nobody, silence])
def test_a_training_does_without_wandb(there: object, tmp_path: Path) -> None:
    (tmp_path / "voices").mkdir()
    for seed in (1, 2):
        (tmp_path / "voices" / f"{seed}.wav").write_bytes(sound(0.8, seed))
    with there() as port:  # type: ignore[operator]
        settings = {
            "WANDB_MODE": "online",
            "WANDB_API_KEY": "0" * 40,
            "WANDB_BASE_URL": f"http://127.0.0.1:{port}",
        }
        # Two minutes at most, as for any command.
        done = Workspace(tmp_path, settings).run(
            "train", "predictor", "--recorded", "voices", *SMALL
        )
    assert done.returncode == 0, done.stderr
    model = ModelStore(FolderStore(tmp_path / "home" / "store")).find(
        "predictor", done.stdout.strip().partition("@")[0]
    )
    assert model.config["figures"]
    (told,) = [line for line in done.stderr.splitlines() if "wandb" in line.lower()]
    assert told.startswith("W&B does not work, training goes on without it: ")
    assert f"its course is kept below {tmp_path / 'home' / 'wandb'}" in told
    assert list((tmp_path / "home" / "wandb").rglob(f"offline-run-*/run-{model.id}.wandb"))
