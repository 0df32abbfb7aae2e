"""The store is away in the midst of a run over processes: for a while, or for good."""

# ruff: noqa: PLC0415

import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from services.errors import UnavailableError
from tests.e2e.processes import STAGES, WORKS_IN, Processes
from tests.e2e.trouble import RESUMES, Ground, wanted_run
from tests.servers.seaweed import Seaweed

if TYPE_CHECKING:
    from demiurge.gateway.v1.gateway_service_pb2 import Run

slow = pytest.mark.slow


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
