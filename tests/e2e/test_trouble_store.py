"""The store is away in the midst of a run over processes: for a while, or for good."""

# ruff: noqa: PLC0415

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from services.errors import UnavailableError
from tests.conftest import OpenStack, Stack, sound, spec
from tests.e2e.processes import STAGES, WORKS_IN, Processes, running
from tests.servers.seaweed import Seaweed

if TYPE_CHECKING:
    from pathlib import Path

    from demiurge.gateway.v1.gateway_service_pb2 import Run, RunSpec

    from services.runtime.object_store.port import ObjectStore

SOUNDS = {f"{seed}.wav": sound(1.0, seed) for seed in (1, 2)}
RESUMES = "create the run again, and it resumes"
slow = pytest.mark.slow


@dataclass(frozen=True)
class Ground:
    """Services over a bucket, and services that nobody disturbs."""

    processes: Processes
    seaweed: Seaweed
    store: "ObjectStore"
    undisturbed: Stack

    def assert_undisturbed(self, run: "Run", wanted: "RunSpec") -> None:
        """The run has made what it makes without trouble."""
        from demiurge.gateway.v1.gateway_service_pb2 import State

        assert run.state == State.STATE_SUCCEEDED, run
        here, there = run.result, self.undisturbed.made(wanted).result
        for name in ("audio", "edit_list", "spectrogram"):
            one, other = getattr(here, name), getattr(there, name)
            assert one.sha256 == other.sha256
            assert self.store.read(one.key, sha256=one.sha256)


@pytest.fixture(scope="module")
def ground(
    open_stack: OpenStack,
    seaweed: Seaweed,
    trained_models: "Path",
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Ground]:
    from services.runtime.object_store.folder import FolderStore
    from services.runtime.object_store.opening import open_store
    from services.runtime.settings import RuntimeSettings

    location = seaweed.location()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in seaweed.environment.items():
            patch.setenv(name, value)
        store = open_store(RuntimeSettings(store=location))
    models = FolderStore(trained_models)
    for key in models.keys(""):
        store.put(key, models.read(key))
    for name, content in SOUNDS.items():
        store.put(f"audio/prediction/{name}", content)
    settings = seaweed.environment | {
        "DEMIURGE_STORE": location,
        "DEMIURGE_S3_TIMEOUT_SECONDS": "1",
    }
    with (
        open_stack(tmp_path_factory.mktemp("undisturbed")) as undisturbed,
        running(tmp_path_factory.mktemp("processes"), settings) as processes,
    ):
        for name, content in SOUNDS.items():
            undisturbed.upload("prediction", name, content)
        yield Ground(processes, seaweed, store, undisturbed)


def killed(seaweed: Seaweed) -> Callable[[], None]:
    """Kills it; what brings it back."""
    seaweed.stop()
    return seaweed.start


def frozen(seaweed: Seaweed) -> Callable[[], None]:
    """Freezes it; what brings it back."""
    seaweed.pause()
    return seaweed.resume


Attack = Callable[[Seaweed], Callable[[], None]]
ATTACKS = (killed, frozen)
QUICK = [(killed, "render", 3), (frozen, "index", 3)]


def wanted_run(seed: int, stage: str) -> "RunSpec":
    """A run like no other, which takes some time in that stage."""
    return spec(frames=20, files=12 if stage == "generate" else 3, seconds=0.4, seed=seed)


@pytest.mark.parametrize(
    ("attack", "stage", "seconds"),
    [
        *QUICK,
        *(pytest.param(each, stage, 30, marks=slow) for each in ATTACKS for stage in STAGES),
    ],
)
def test_a_run_rides_out_the_absence_of_its_store(
    ground: Ground, attack: Attack, stage: str, seconds: int
) -> None:
    wanted = wanted_run(1000 * ATTACKS.index(attack) + 100 * STAGES.index(stage) + seconds, stage)
    run = ground.processes.held(wanted, stage)
    back = attack(ground.seaweed)
    try:
        ground.processes.thaw(WORKS_IN[stage])
        time.sleep(seconds)
        assert ground.processes.going(run.id)
    finally:
        back()
    ground.assert_undisturbed(ground.processes.ended(run), wanted)


@pytest.mark.parametrize("stage", ["extract", *(pytest.param(each, marks=slow) for each in STAGES)])
def test_a_run_whose_store_stays_away_says_so_and_resumes_when_it_is_back(
    ground: Ground, stage: str
) -> None:
    from demiurge.gateway.v1.gateway_service_pb2 import State

    wanted = wanted_run(5000 + STAGES.index(stage), stage)
    ground.processes.restart("gateway", DEMIURGE_GATEWAY_PATIENCE_SECONDS="1")
    try:
        run = ground.processes.held(wanted, stage)
        back = killed(ground.seaweed)
        try:
            left = last_word(ground.processes, run.id, WORKS_IN[stage])
            assert left.state == State.STATE_FAILED
            # Nothing could be written of it, so that it is neither ended nor at work.
            assert left.failure.reason == "INTERRUPTED"
            assert re.search(r"the object store was away for \d+ s", left.failure.message)
            assert left.failure.message.count(RESUMES) == 1
            with pytest.raises(UnavailableError, match="the object store at http"):
                ground.processes.create(wanted)
        finally:
            back()
        assert ground.processes.look(run.id).failure.message.count(RESUMES) == 1
    finally:
        ground.processes.restart("gateway")
    resumed = ground.processes.create(wanted)
    assert resumed.id == run.id
    ground.assert_undisturbed(ground.processes.ended(resumed), wanted)


def last_word(processes: Processes, run_id: str, frozen_noun: str) -> "Run":
    """What whoever watches the run hears last, after its service was thawed."""
    *_, last = processes.watched(run_id, lambda: processes.thaw(frozen_noun))
    return last
