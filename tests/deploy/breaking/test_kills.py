"""kill -9 of every service in every stage: the run goes on, and makes the same bytes."""

import pytest

from services.runtime.settings import NOUNS
from tests.conftest import Stack as Embedded
from tests.deploy.breaking.caller import Caller, wanted_run
from tests.deploy.breaking.conftest import assert_same, assert_whole
from tests.e2e.processes import STAGES, WORKS_IN

pytestmark = pytest.mark.containers

VICTIMS = (*NOUNS, "envoy", "minio")


def test_the_service_at_work_is_killed_in_each_stage_of_one_run(
    caller: Caller, undisturbed: Embedded
) -> None:
    wanted = wanted_run(100, "generate")
    run = caller.create(wanted)
    for stage in caller.in_each_stage(run):
        # It dies as it thaws, with the calls that it was given.
        caller.stack.kill(WORKS_IN[stage])
    assert_same(caller.ended(wanted, run), wanted, caller, undisturbed)


def test_the_gateway_is_killed_and_goes_on_by_itself(caller: Caller, undisturbed: Embedded) -> None:
    wanted = wanted_run(110)
    with caller.held(wanted, "render") as run:
        caller.stack.kill("gateway")
    assert_same(caller.ended(wanted, run), wanted, caller, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("victim", VICTIMS)
@pytest.mark.parametrize("stage", STAGES)
def test_any_service_is_killed_in_any_stage(
    stage: str, victim: str, caller: Caller, undisturbed: Embedded
) -> None:
    wanted = wanted_run(200 + 10 * STAGES.index(stage) + VICTIMS.index(victim), stage)
    with caller.held(wanted, stage) as run:
        caller.stack.kill(victim)
    assert_same(caller.ended(wanted, run), wanted, caller, undisturbed)


def test_nothing_is_half_written_and_no_point_is_orphaned_after_all_that(caller: Caller) -> None:
    assert_whole(caller.stack)
