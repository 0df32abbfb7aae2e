"""`--scale synth=3`: work is shared, a replica may die, and a new one gets work."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import pytest
from demiurge.gateway.v1.gateway_service_pb2 import State

from tests.conftest import sound, spec, upload_messages
from tests.deploy.compose.calling import Steadily, answered, answered_by, client, ended, generate
from tests.deploy.stack import Stack
from tests.e2e.workspace import wait_until

pytestmark = pytest.mark.containers
REPLICAS = 3
CALLS = 60
# A connection's age, the pause between two looks into the DNS, and a busy machine.
NEWS_SECONDS = 90.0


@pytest.fixture(scope="module")
def scaled(stack: Stack) -> Iterator[Stack]:
    """Three replicas; one again afterwards."""
    stack.scale("synth", REPLICAS)
    yield stack
    stack.scale("synth", 1)


@contextmanager
def loaded(stack: Stack, call: Callable[[], object]) -> Iterator[Steadily]:
    """The call again and again, once every replica has heard of it."""
    with Steadily(call) as load:
        wait_until(lambda: all(answered(stack).values()), NEWS_SECONDS)
        yield load
    assert not load.errors, load.errors[0]


def shares(stack: Stack, call: Callable[[], object], calls: int) -> list[float]:
    """The replicas' shares of so many calls."""
    before = answered(stack)
    for _ in range(calls):
        call()
    after = answered(stack)
    gained = [after[replica] - before[replica] for replica in before]
    return [gain / sum(gained) for gain in gained]


def lose_one_and_win_one(stack: Stack) -> None:
    """Kills a replica and adds another; returns when both have worked since."""
    killed, *_ = stack.containers("synth")
    before = answered_by(killed)
    stack.kill("synth")
    known = set(stack.containers("synth"))
    stack.scale("synth", REPLICAS + 1)
    [new] = set(stack.containers("synth")) - known
    wait_until(lambda: answered_by(new) > 0 and answered_by(killed) > before, NEWS_SECONDS)


def test_one_client_of_the_published_address_has_the_work_of_all_replicas(scaled: Stack) -> None:
    with client(scaled) as calls:
        with loaded(scaled, lambda: generate(calls)):
            pass
        assert min(shares(scaled, lambda: generate(calls), CALLS)) >= 0.25
        with loaded(scaled, lambda: generate(calls)):
            lose_one_and_win_one(scaled)
    scaled.scale("synth", REPLICAS)


def test_one_gateway_has_the_work_of_all_replicas(scaled: Stack) -> None:
    seeds = count(1000)
    with client(scaled) as calls:
        calls.pipeline.UploadAudio(iter(upload_messages("prediction", "1.wav", sound(1.0, 1))))

        def piece() -> None:
            run = ended(calls, spec(files=30, seconds=0.1, seed=next(seeds)))
            assert run.state == State.STATE_SUCCEEDED, run.failure

        with loaded(scaled, piece):
            pass
        assert min(shares(scaled, piece, 2)) >= 0.25
        with loaded(scaled, piece):
            lose_one_and_win_one(scaled)
