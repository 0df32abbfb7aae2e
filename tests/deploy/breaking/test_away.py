"""Services that hang, and networks that are cut, for a while: runs wait, callers hear nothing."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from services.runtime.settings import NOUNS
from tests.conftest import Stack as Embedded
from tests.deploy.breaking.caller import Caller, wanted_run
from tests.deploy.breaking.conftest import assert_same, assert_whole
from tests.deploy.stack import Stack
from tests.e2e.processes import STAGES

pytestmark = pytest.mark.containers
slow = pytest.mark.slow

AWAY_SECONDS = 30
BRIEFLY_SECONDS = 5
EVERYONE = (*NOUNS, "envoy", "minio")


def lastingly(nouns: Sequence[str]) -> list[Any]:
    """Each of them, away for so long that it is a slow test."""
    return [pytest.param(noun, AWAY_SECONDS, marks=slow) for noun in nouns]


@contextmanager
def paused(stack: Stack, noun: str) -> Iterator[None]:
    stack.pause(noun)
    try:
        yield
    finally:
        stack.unpause(noun)


@contextmanager
def cut_off(stack: Stack, noun: str) -> Iterator[None]:
    stack.cut(noun)
    try:
        yield
    finally:
        stack.mend(noun)


@pytest.mark.parametrize(("noun", "seconds"), [("gateway", BRIEFLY_SECONDS), *lastingly(EVERYONE)])
def test_what_hangs_for_a_while_is_waited_for(
    noun: str, seconds: int, caller: Caller, undisturbed: Embedded
) -> None:
    wanted = wanted_run(300 + EVERYONE.index(noun) + seconds)
    run = caller.create(wanted)
    with paused(caller.stack, noun):
        time.sleep(seconds)
    assert_same(caller.ended(wanted, run), wanted, caller, undisturbed)


@slow
@pytest.mark.parametrize("stage", STAGES)
def test_a_service_that_hangs_with_work_in_its_hands_is_waited_for(
    stage: str, caller: Caller, undisturbed: Embedded
) -> None:
    wanted = wanted_run(320 + STAGES.index(stage), stage)
    with caller.held(wanted, stage) as run:
        time.sleep(AWAY_SECONDS)
    assert_same(caller.ended(wanted, run), wanted, caller, undisturbed)


# Cut off from its caller, Envoy is no more than a published port that leads nowhere.
CONNECTED = [noun for noun in EVERYONE if noun != "envoy"]


@pytest.mark.parametrize(("noun", "seconds"), [("synth", BRIEFLY_SECONDS), *lastingly(CONNECTED)])
def test_a_network_that_is_cut_for_a_while_is_waited_for(
    noun: str, seconds: int, caller: Caller, undisturbed: Embedded
) -> None:
    wanted = wanted_run(400 + EVERYONE.index(noun) + seconds, "generate")
    run = caller.create(wanted)
    with cut_off(caller.stack, noun):
        time.sleep(seconds)
    assert_same(caller.ended(wanted, run), wanted, caller, undisturbed)


@pytest.mark.parametrize(
    "stage",
    [stage if stage == "extract" else pytest.param(stage, marks=slow) for stage in STAGES],
)
def test_a_store_that_is_restarted_is_waited_for(
    stage: str, caller: Caller, undisturbed: Embedded
) -> None:
    wanted = wanted_run(450 + STAGES.index(stage), stage)
    with caller.held(wanted, stage) as run:
        caller.stack.stop("minio")
    caller.stack.start("minio")
    assert_same(caller.ended(wanted, run), wanted, caller, undisturbed)


def test_nothing_is_half_written_and_no_point_is_orphaned_after_all_that(caller: Caller) -> None:
    assert_whole(caller.stack)
