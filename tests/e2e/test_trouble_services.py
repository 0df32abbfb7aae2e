"""Services hang, die or stay away in the midst of a run over processes."""

# ruff: noqa: PLC0415

import time

import pytest

from tests.e2e.processes import STAGES, WORKS_IN
from tests.e2e.trouble import RESUMES, Ground, wanted_run
from tests.servers.qdrant import Qdrant

slow = pytest.mark.slow


@pytest.mark.parametrize(
    ("stage", "seconds"),
    # Connections are given up after 40 s without a sign of life.
    [pytest.param(stage, seconds, marks=slow) for stage in STAGES for seconds in (30, 60)],
)
def test_a_run_rides_out_a_service_that_hangs_for_a_while(
    ground: Ground, stage: str, seconds: int
) -> None:
    wanted = wanted_run(100 * STAGES.index(stage) + seconds, stage)
    run = ground.processes.held(wanted, stage)
    time.sleep(seconds)
    assert ground.processes.going(run.id)
    ground.processes.thaw(WORKS_IN[stage])
    ground.assert_undisturbed(ground.processes.ended(run), wanted)


@pytest.mark.parametrize("stage", [pytest.param(each, marks=slow) for each in STAGES])
def test_a_run_rides_out_a_service_that_is_away_for_half_a_minute(
    ground: Ground, stage: str
) -> None:
    wanted = wanted_run(1000 + STAGES.index(stage), stage)
    run = ground.processes.held(wanted, stage)
    ground.processes.kill(WORKS_IN[stage])
    time.sleep(30)
    assert ground.processes.going(run.id)
    ground.processes.start(WORKS_IN[stage])
    ground.assert_undisturbed(ground.processes.ended(run), wanted)


SHORT = {
    "DEMIURGE_GATEWAY_CALL_TIMEOUT_SECONDS": "8",
    "DEMIURGE_GATEWAY_PATIENCE_SECONDS": "2",
}


@pytest.mark.parametrize("stage", ["predict", *(pytest.param(each, marks=slow) for each in STAGES)])
def test_a_service_that_hangs_ends_the_run_by_name_and_it_resumes(
    ground: Ground, stage: str
) -> None:
    from demiurge.gateway.v1.gateway_service_pb2 import State

    noun = WORKS_IN[stage]
    wanted = wanted_run(2000 + STAGES.index(stage), stage)
    ground.processes.restart("gateway", **SHORT)
    run = ground.processes.held(wanted, stage)
    failed = ground.processes.ended(run)
    ground.processes.thaw(noun)

    assert (failed.state, failed.failure.reason) == (State.STATE_FAILED, "TIME_EXCEEDED")
    assert f"the {noun} service did not answer" in failed.failure.message
    assert "look at its log" in failed.failure.message
    assert failed.failure.message.count(RESUMES) == 1
    ground.processes.restart("gateway")
    resumed = ground.processes.create(wanted)
    assert resumed.id == run.id
    ground.assert_undisturbed(ground.processes.ended(resumed), wanted)


@pytest.mark.parametrize("stage", [pytest.param(each, marks=slow) for each in STAGES])
def test_a_service_that_stays_away_ends_the_run_by_name_and_it_resumes(
    ground: Ground, stage: str
) -> None:
    """The gateway is stopped, too, before all are there again."""
    from demiurge.gateway.v1.gateway_service_pb2 import State

    noun = WORKS_IN[stage]
    wanted = wanted_run(4000 + STAGES.index(stage), stage)
    ground.processes.restart("gateway", **SHORT | {"DEMIURGE_GATEWAY_CALL_TIMEOUT_SECONDS": "60"})
    run = ground.processes.held(wanted, stage)
    ground.processes.kill(noun)
    failed = ground.processes.ended(run)

    assert (failed.state, failed.failure.reason) == (State.STATE_FAILED, "UNAVAILABLE")
    assert f"the {noun} service was away for" in failed.failure.message
    assert "see that it runs" in failed.failure.message
    assert failed.failure.message.count(RESUMES) == 1
    ground.processes.kill("gateway")
    for each in (noun, "gateway"):
        ground.processes.start(each)
    for each in (noun, "gateway"):
        ground.processes.wait_for(each)
    resumed = ground.processes.create(wanted)
    assert resumed.id == run.id
    ground.assert_undisturbed(ground.processes.ended(resumed), wanted)


@pytest.mark.parametrize("seconds", [3, pytest.param(30, marks=slow)])
def test_a_run_rides_out_the_absence_of_its_qdrant_server(ground: Ground, seconds: int) -> None:
    wanted = wanted_run(3000 + seconds, "index")
    with Qdrant() as server:
        ground.processes.restart(
            "query",
            DEMIURGE_QUERY_URL=server.url,
            DEMIURGE_QUERY_GRPC_PORT=str(server.grpc_port),
        )
        try:
            run = ground.processes.held(wanted, "index")
            server.stop()
            ground.processes.thaw("query")
            time.sleep(seconds)
            assert ground.processes.going(run.id)
            with Qdrant(port=server.grpc_port, local=server.local):
                ground.assert_undisturbed(ground.processes.ended(run), wanted)
        finally:
            ground.processes.restart("query")
