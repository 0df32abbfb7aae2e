"""One training in a process of its own, which may be killed at any write and around any step."""

# ruff: noqa: PLC0415

import hashlib
import io
import json
import os
import sys
from pathlib import Path
from typing import Any, cast

from services.cli.progress import Reporter
from tests.survival.child import Scene
from tests.survival.journal import Journal, WitnessedStore, witness_halves

STEPS = 6
MEL = {"n_fft": 256, "hop_length": 64, "win_length": 256, "n_mels": 16}
NARROW: dict[str, dict[str, Any]] = {
    "melgan": {
        **{f"generator.mel.{name}": value for name, value in MEL.items()},
        "generator.ngf": 2,
        "generator.ratios": "8,8",
        "discriminator.ndf": 2,
        "discriminator.max_channels": 8,
        "adversarial_from_step": 2,
        "batch_size": 2,
        "crop_samples": 2048,
        "validation_seconds": 0.2,
    },
    "unagan": {
        **{f"networks.mel.{name}": value for name, value in MEL.items()},
        "networks.z_dim": 4,
        "networks.z_scale_factors": "2,2",
        "networks.middle_dim": 8,
        "batch_size": 2,
        "segment_seconds": 0.1,
    },
    "predictor": {
        "window_size": 5,
        "hidden_size": 4,
        "num_layers": 1,
        "input_noise": 0.1,
        "deltas": "computed",
        "anchor": "linear",
        "rollout_frames": 2,
        "average_decay": 0.9,
        "patience": 3,
    },
}
PRESETS = {"unagan": "published-script"}
# Told by the clock, and so never the same.
TIMED = {"steps_per_second", "data_wait_share"}


class Steps(Reporter):
    """Notes each step in the journal, as if it were a write."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def say(self, text: str) -> None:
        print(text, flush=True)  # noqa: T201 - the log

    def update(self, name: str, completed: int, total: int, note: str = "") -> None:  # noqa: ARG002
        if name.startswith("training"):
            with self._journal.writing("step", str(completed)):
                pass


def play_training(scene: Scene) -> None:
    """Trains the family over folder/voices for a few steps; writes the outcome."""
    folder = Path(scene.folder)
    os.environ |= scene.settings
    # The import alone takes longer than the training, and nothing depends on it.
    sys.modules["wandb"] = cast("Any", None)
    from services.cli.training import judging
    from services.cli.training.begin import train
    from services.cli.training.order import Order
    from services.cli.training.sitting import Workshop
    from services.runtime.object_store.folder import FolderStore
    from services.runtime.object_store.port import ObjectStore

    # It comes after the training, and is the same again whatever happened before.
    judging.judge_version = lambda version, *_, **__: version
    scene.journal.unlink(missing_ok=True)
    journal = Journal(scene.journal, scene.death)
    witness_halves(journal)
    store = FolderStore(folder / "store")
    order = Order(
        scene.trains,
        folder / "voices",
        preset=PRESETS.get(scene.trains, "demo-cpu"),
        seed=3,
        device="cpu",
        steps=STEPS,
        every=3,
        overrides=NARROW[scene.trains],
    )
    witnessed = cast("ObjectStore", WitnessedStore(store, journal))
    version = train(order, Workshop(witnessed, Steps(journal), folder))
    scene.outcome.write_text(json.dumps(outcome(store, version.id)))


def outcome(store: Any, model_id: str) -> dict[str, Any]:
    """All that a training left: digests, but for its id and the times."""
    import torch

    left: dict[str, Any] = {}
    for key in store.keys(""):
        content = store.read(key)
        if key.endswith("card.md"):
            continue
        if key.endswith(".pt"):
            state = torch.load(io.BytesIO(content), weights_only=True)
            state["course"].pop("seconds")
            told: Any = hashlib.sha256(_plain(state).encode()).hexdigest()
        elif key.endswith("training.json"):
            told = json.loads(content) | {"id": "ID", "folder": "where it lies"}
        elif key.endswith("newest.json"):
            told = [each["step"] for each in json.loads(content)]
        elif key.endswith("log.jsonl"):
            told = [_timeless(json.loads(line)) for line in content.splitlines()]
        else:
            told = hashlib.sha256(content.replace(model_id.encode(), b"ID")).hexdigest()
        left[key.replace(model_id, "ID")] = told
    return left


def _timeless(entry: dict[str, Any]) -> tuple[int, dict[str, float]]:
    figures = {name: value for name, value in entry["figures"].items() if name not in TIMED}
    return entry["step"], figures


def _plain(value: Any) -> str:
    """A text that tells every bit of every tensor."""
    import torch

    if isinstance(value, torch.Tensor):
        return f"{value.dtype}{tuple(value.shape)}{value.numpy().tobytes().hex()}"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_plain(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_plain, value)) + "]"
    return repr(value)
