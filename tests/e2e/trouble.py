"""What the runs of the tests of trouble begin with, and what they have to come to."""

# ruff: noqa: PLC0415

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.conftest import OpenStack, Stack, sound

if TYPE_CHECKING:
    from demiurge.gateway.v1.gateway_service_pb2 import Run, RunSpec

    from services.runtime.object_store.port import ObjectStore

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
