"""Two gateways over one store: each shows, follows, stops and takes over the runs of the other."""

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent import futures
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from demiurge.gateway.v1 import gateway_service_pb2 as pb
from demiurge.gateway.v1.gateway_service_pb2 import Run, RunSpec, State

from services.cli.connection import client_of
from services.errors import NotReadyError, UnavailableError
from services.runtime.channels import open_blocking_channel
from services.runtime.settings import NOUNS, RuntimeSettings
from tests.conftest import OpenStack, Stack, sound, spec
from tests.contract.gateways import (
    PEERS,
    Between,
    free_port,
    gateway,
    keys_of,
    served_between,
    settled,
)

COMMAND = Path(sys.executable).with_name("demiurge")


@pytest.fixture(scope="module")
def material(open_stack: OpenStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack with something to make pieces of."""
    with open_stack(tmp_path_factory.mktemp("lease")) as stack:
        stack.upload("prediction", "1.wav", sound(1.0, 1))
        for seed in (2, 3):
            stack.upload("material", f"{seed}.wav", sound(0.7, seed))
        yield stack


@pytest.fixture(scope="module")
def two(material: Stack) -> Iterator[tuple[Stack, Stack, Between]]:
    """Two gateways, and who stands between them and the services."""
    between = Between(material.address)
    with served_between(between) as port:
        address = f"127.0.0.1:{port}"
        with gateway(material, address) as one, gateway(material, address) as other:
            yield one, other, between
    between.close()


def at_work(stack: Stack, between: Between, wanted: RunSpec) -> Run:
    """The run of `wanted`, its predictor held."""
    between.asked.clear()
    between.hold("PredictDescriptors")
    run = stack.create(wanted)
    assert between.answered.wait(60)
    return run


def shown(stack: Stack, run_id: str) -> Run:
    """A run once its first beat after the stage began is there."""
    deadline = time.monotonic() + 30
    while (run := stack.get(run_id)).stages[3].state != State.STATE_RUNNING:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return run


def test_a_run_is_seen_at_the_other_gateway_as_it_goes(two: tuple[Stack, Stack, Between]) -> None:
    one, other, between = two
    run = at_work(one, between, spec(database="material", seed=1))

    seen = shown(other, run.id)
    assert seen.state == State.STATE_RUNNING
    assert [stage.state for stage in seen.stages[:3]] == [State.STATE_SUCCEEDED] * 3
    listed = other.call(other.client.pipeline.ListRuns, pb.ListRunsRequest()).runs
    assert (listed[0].id, listed[0].state) == (run.id, State.STATE_RUNNING)
    with pytest.raises(NotReadyError, match=f"{run.id} is at work"):
        other.call(other.client.pipeline.DeleteRun, pb.DeleteRunRequest(run_id=run.id))

    with futures.ThreadPoolExecutor(1) as pool:
        watching = pool.submit(lambda: list(other.watch(run.id)))
        between.release()
        states = [message.state for message in watching.result(timeout=60)]

    assert states[-1] == State.STATE_SUCCEEDED
    assert set(states[:-1]) <= {State.STATE_RUNNING}


def test_a_run_that_is_created_at_the_other_gateway_too_is_made_once(
    two: tuple[Stack, Stack, Between],
) -> None:
    one, other, between = two
    wanted = spec(database="material", seed=2)
    run = at_work(one, between, wanted)

    assert other.create(wanted).id == run.id
    between.release()

    assert other.ended(run) == one.ended(run)
    assert between.asked.count("RenderAudio") == 1
    assert not one.store.exists(f"runs/{run.id}/live.json")


def test_two_gateways_that_are_asked_at_once_end_with_one_piece(
    two: tuple[Stack, Stack, Between],
) -> None:
    one, other, _ = two
    for seed in range(3, 6):
        wanted = spec(database="material", seed=seed)
        with futures.ThreadPoolExecutor(4) as pool:
            made = list(pool.map(Stack.made, (one, other, one, other), [wanted] * 4))

        assert {run.state for run in made} == {State.STATE_SUCCEEDED}
        assert len({run.id for run in made}) == 1
        assert len({run.result.SerializeToString(deterministic=True) for run in made}) == 1
        result = made[0].result.audio
        assert one.store.read(result.key, sha256=result.sha256)
        assert one.get(made[0].id) == other.get(made[0].id)
        assert not [key for key in keys_of(one, made[0].id) if key.endswith("live.json")]
        one.call(one.client.pipeline.DeleteRun, pb.DeleteRunRequest(run_id=made[0].id))
        assert other.made(wanted).result == made[0].result


def test_a_run_is_cancelled_from_the_other_gateway(two: tuple[Stack, Stack, Between]) -> None:
    one, other, between = two
    wanted = spec(database="material", seed=6)
    run = at_work(one, between, wanted)

    assert other.cancel(run.id).state == State.STATE_CANCELLED
    assert one.ended(run).state == State.STATE_CANCELLED
    settled(one)

    between.release()
    assert other.made(wanted).state == State.STATE_SUCCEEDED
    assert not one.store.exists(f"runs/{run.id}/cancel.json")


def test_an_interrupted_run_can_be_cancelled(two: tuple[Stack, Stack, Between]) -> None:
    one, _, _ = two
    run = one.made(spec(database="material", seed=7))
    one.store.delete(f"runs/{run.id}/run.json")
    assert one.get(run.id).failure.reason == "INTERRUPTED"

    assert one.cancel(run.id).state == State.STATE_CANCELLED

    assert one.get(run.id).state == State.STATE_CANCELLED
    assert one.made(spec(database="material", seed=7)).result == run.result


def test_a_run_whose_gateway_stops_goes_on_where_it_was_created_too(
    material: Stack, two: tuple[Stack, Stack, Between]
) -> None:
    one, _, between = two
    wanted = spec(database="material", seed=8)
    with served_between(between) as port, ExitStack() as closing:
        third = closing.enter_context(gateway(material, f"127.0.0.1:{port}"))
        run = at_work(third, between, wanted)
        assert one.create(wanted).id == run.id
        with futures.ThreadPoolExecutor(1) as pool:
            watching = pool.submit(one.ended, run)
            shown(one, run.id)
            between.held = ""
            closing.close()
            assert watching.result(timeout=60).state == State.STATE_SUCCEEDED
    between.release()


@contextmanager
def process_of_a_gateway(
    stack: Stack, address: str, folder: Path
) -> Iterator[tuple[Stack, subprocess.Popen[bytes]]]:
    """`demiurge serve gateway`."""
    port = free_port()
    addresses = {f"DEMIURGE_{noun.upper()}_ADDRESS": address for noun in PEERS}
    environment = {
        "DEMIURGE_HOME": str(folder),
        "DEMIURGE_STORE": str(stack.folder / "store"),
        "DEMIURGE_PORT": str(port),
        **addresses,
    }
    process = subprocess.Popen(
        [COMMAND, "serve", "gateway"], env=environment, stdout=subprocess.DEVNULL
    )
    own = f"127.0.0.1:{port}"
    try:
        with open_blocking_channel(own, RuntimeSettings()) as channel:
            client = client_of(dict.fromkeys(NOUNS, channel))
            opened = Stack(client, stack.store, stack.folder, own)
            deadline = time.monotonic() + 60
            while True:
                try:
                    opened.call(client.pipeline.ListRuns, pb.ListRunsRequest(page_size=1))
                    break
                except UnavailableError:
                    assert time.monotonic() < deadline
            yield opened, process
    finally:
        process.kill()
        process.wait()


def test_a_run_whose_gateway_is_killed_is_taken_over_where_it_was_created_too(
    material: Stack, two: tuple[Stack, Stack, Between], tmp_path: Path
) -> None:
    one, _, between = two
    wanted = spec(database="material", seed=9)
    with (
        served_between(between) as port,
        process_of_a_gateway(material, f"127.0.0.1:{port}", tmp_path) as (doomed, process),
    ):
        run = at_work(doomed, between, wanted)
        assert one.create(wanted).id == run.id
        with futures.ThreadPoolExecutor(1) as pool:
            watching = pool.submit(one.ended, run)
            shown(one, run.id)
            process.kill()
            process.wait()
            between.release()
            assert watching.result(timeout=60).state == State.STATE_SUCCEEDED


def test_a_gateway_told_so_takes_up_interrupted_runs_and_leaves_cancelled_ones(
    material: Stack, two: tuple[Stack, Stack, Between]
) -> None:
    one, _, _ = two
    left, cancelled = (one.made(spec(database="material", seed=seed)) for seed in (10, 11))
    for run in (left, cancelled):
        one.store.delete(f"runs/{run.id}/run.json")
        one.store.delete(f"runs/{run.id}/stages/5.json")
    one.cancel(cancelled.id)

    with gateway(material, resume_runs=True):
        assert one.get(left.id).failure.reason == "INTERRUPTED"
        time.sleep(2)
        assert one.get(left.id).failure.reason == "INTERRUPTED"
    with gateway(material, lasting=True, resume_runs=True) as night:
        assert night.ended(left).result == left.result
        assert night.get(cancelled.id).state == State.STATE_CANCELLED
