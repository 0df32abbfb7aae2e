"""Runs that are cancelled while a stage is at work, deleted, and made again."""

import time
from collections.abc import Iterator

import pytest
from demiurge.gateway.v1 import gateway_service_pb2 as pb
from demiurge.gateway.v1.gateway_service_pb2 import State

from services.errors import NotFoundError, NotReadyError
from tests.conftest import OpenStack, Stack, sound, spec
from tests.contract.gateways import Between, gateway, keys_of, served_between, settled

METHODS = {
    "generate": "GenerateAudio",
    "extract": "ExtractDescriptors",
    "index": "IndexDescriptors",
    "predict": "PredictDescriptors",
    "match": "MatchDescriptors",
    "render": "RenderAudio",
}
PROMPT_SECONDS = 2.0


@pytest.fixture(scope="module")
def held(
    open_stack: OpenStack, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Stack, Between]]:
    """A gateway whose peers can be held."""
    with open_stack(tmp_path_factory.mktemp("held")) as stack:
        for seed in (1, 2):
            stack.upload("prediction", f"{seed}.wav", sound(1.0, seed))
        between = Between(stack.address)
        with (
            served_between(between) as port,
            gateway(stack, f"127.0.0.1:{port}") as opened,
        ):
            yield opened, between
        between.close()


def delete(stack: Stack, run_id: str) -> None:
    stack.call(stack.client.pipeline.DeleteRun, pb.DeleteRunRequest(run_id=run_id))


@pytest.mark.parametrize(("stage", "method"), list(METHODS.items()))
def test_a_run_stops_at_once_in_any_stage_leaves_nothing_when_deleted_and_can_be_made_again(
    shared: Stack, held: tuple[Stack, Between], stage: str, method: str
) -> None:
    stack, between = held
    wanted = spec(frames=20, files=2, seed=100 + list(METHODS).index(stage))
    undisturbed = shared.piece(wanted)
    between.hold(method)
    run = stack.create(wanted)
    assert between.answered.wait(60)

    begin = time.monotonic()
    cancelled = stack.cancel(run.id)
    took = time.monotonic() - begin

    assert took < PROMPT_SECONDS
    assert cancelled.state == State.STATE_CANCELLED
    states = {each.name: each.state for each in cancelled.stages}
    assert states[stage] == State.STATE_CANCELLED
    settled(stack)
    assert not stack.store.exists(f"runs/{run.id}/live.json")
    between.release()

    if stage in {"generate", "match"}:
        assert stack.piece(wanted) == undisturbed
    delete(stack, run.id)
    assert keys_of(stack, run.id) == []
    with pytest.raises(NotFoundError, match=run.id):
        stack.get(run.id)
    assert stack.piece(wanted) == undisturbed
    assert not stack.store.exists(f"runs/{run.id}/cancel.json")


def test_a_run_at_work_is_not_deleted(held: tuple[Stack, Between]) -> None:
    stack, between = held
    between.hold("PredictDescriptors")
    run = stack.create(spec(files=1, seed=110))
    assert between.answered.wait(60)

    with pytest.raises(NotReadyError, match=f"{run.id} is at work: cancel it first"):
        delete(stack, run.id)

    between.release()
    assert stack.ended(run).state == State.STATE_SUCCEEDED
    delete(stack, run.id)
    with pytest.raises(NotFoundError, match=run.id):
        delete(stack, run.id)


def test_a_run_that_is_cancelled_and_created_at_once_goes_on(
    held: tuple[Stack, Between],
) -> None:
    stack, between = held
    between.hold("PredictDescriptors")
    wanted = spec(files=1, seed=111)
    run = stack.create(wanted)
    assert between.answered.wait(60)
    stack.cancel(run.id)
    between.release()

    assert stack.made(wanted).state == State.STATE_SUCCEEDED


@pytest.mark.parametrize("stage", list(METHODS))
def test_no_service_goes_on_with_a_run_that_was_cancelled(shared: Stack, stage: str) -> None:
    number = list(METHODS).index(stage)
    for seed in (6, 7, 8):
        shared.upload("long", f"{seed}.wav", sound(20.0, seed))
    material = {"database": "long"} if number else {"files": 16, "seconds": 0.9}
    wanted = spec(prediction="long", frames=900, seed=120 + number, **material)
    run = shared.create(wanted)
    for message in shared.watch(run.id):
        if message.stages[number].state != State.STATE_PENDING:
            break

    begin = time.monotonic()
    cancelled = shared.cancel(run.id)

    assert time.monotonic() - begin < PROMPT_SECONDS
    assert cancelled.state == State.STATE_CANCELLED
    settled(shared)
    assert shared.made(wanted).state == State.STATE_SUCCEEDED
