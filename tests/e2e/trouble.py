"""What the runs of the tests of trouble begin with, and what they have to come to."""

# ruff: noqa: PLC0415

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import OpenStack, Stack, sound, spec
from tests.e2e.processes import Processes, running

if TYPE_CHECKING:
    from demiurge.gateway.v1.gateway_service_pb2 import Run, RunSpec

    from services.runtime.object_store.port import ObjectStore
    from tests.servers.seaweed import Seaweed

RESUMES = "create the run again, and it resumes"
SOUNDS = {f"{seed}.wav": sound(1.0, seed) for seed in (1, 2)}


def furnish_store(store: "ObjectStore", trained_models: Path) -> None:
    """Models, and two sounds to continue."""
    from services.runtime.object_store.folder import FolderStore

    models = FolderStore(trained_models)
    for key in models.keys(""):
        store.put(key, models.read(key))
    for name, content in SOUNDS.items():
        store.put(f"audio/prediction/{name}", content)


@contextmanager
def undisturbed_stack(open_stack: OpenStack, folder: Path) -> Iterator[Stack]:
    """What troubled services are compared with."""
    with open_stack(folder) as opened:
        for name, content in SOUNDS.items():
            opened.upload("prediction", name, content)
        yield opened


@dataclass(frozen=True)
class Ground:
    """Services over a bucket, and services that nobody disturbs."""

    processes: Processes
    seaweed: "Seaweed"
    store: "ObjectStore"
    undisturbed: Stack

    def assert_undisturbed(self, run: "Run", wanted: "RunSpec") -> None:
        """The run has made what it makes without trouble."""
        assert_undisturbed(run, self.store, self.undisturbed, wanted)


@contextmanager
def troubled_ground(
    open_stack: OpenStack, seaweed: "Seaweed", trained_models: Path, folder: Path
) -> Iterator[Ground]:
    """Six processes over a bucket; the server is given up after a second's silence."""
    from services.runtime.object_store.opening import open_store
    from services.runtime.settings import RuntimeSettings

    location = seaweed.location()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in seaweed.environment.items():
            patch.setenv(name, value)
        store = open_store(RuntimeSettings(store=location))
    furnish_store(store, trained_models)
    settings = seaweed.environment | {
        "DEMIURGE_STORE": location,
        "DEMIURGE_S3_TIMEOUT_SECONDS": "1",
    }
    with (
        undisturbed_stack(open_stack, folder / "undisturbed") as undisturbed,
        running(folder, settings) as processes,
    ):
        yield Ground(processes, seaweed, store, undisturbed)


def wanted_run(seed: int, stage: str) -> "RunSpec":
    """A run like no other, which takes some time in that stage."""
    return spec(frames=20, files=12 if stage == "generate" else 3, seconds=0.4, seed=seed)


def assert_undisturbed(
    run: "Run", store: "ObjectStore", undisturbed: Stack, wanted: "RunSpec"
) -> None:
    """The run succeeded, and `store` has of it what it makes without trouble."""
    from demiurge.gateway.v1.gateway_service_pb2 import State

    assert run.state == State.STATE_SUCCEEDED, run
    here, there = run.result, undisturbed.made(wanted).result
    for name in ("audio", "edit_list", "spectrogram"):
        one, other = getattr(here, name), getattr(there, name)
        assert one.sha256 == other.sha256
        assert store.read(one.key, sha256=one.sha256)
