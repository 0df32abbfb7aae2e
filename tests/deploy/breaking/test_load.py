"""Rolling restarts under load, and more load than there is room for."""

import asyncio
import logging
import threading
from collections.abc import Callable

import pytest

from services.runtime.settings import NOUNS, RuntimeSettings
from tests.conftest import Stack as Embedded
from tests.deploy.breaking.caller import Caller, wanted_run
from tests.deploy.breaking.conftest import assert_same
from tests.deploy.breaking.load import Answers, load, predict, small_calls

pytestmark = pytest.mark.containers

# What was measured is told by `pytest --log-cli-level=info`.
logger = logging.getLogger(__name__)

# Measured: see docs/operations.md.
REFUSED_WITHIN_SECONDS = 0.05
GOODPUT = 0.9
CALLS = 5_000
# What a process that serves may still gather: caches of fixed size, fragments of the allocator.
GROWTH_BYTES = 8 * 1024**2


def settings_of(caller: Caller) -> RuntimeSettings:
    return RuntimeSettings(address=caller.stack.address, token_file=caller.stack.secrets / "token")


def during(caller: Caller, act: Callable[[], None]) -> Answers:
    """What four callers of all services hear from a little before `act` until a little after."""
    ended = threading.Event()
    heard: list[Answers] = []

    def call() -> None:
        while not ended.is_set():
            calls = [*small_calls(), predict(20)]
            heard.append(
                asyncio.run(
                    load(caller.stack.address, settings_of(caller), calls, callers=4, seconds=2)
                )
            )

    thread = threading.Thread(target=call)
    thread.start()
    try:
        act()
    finally:
        ended.set()
        thread.join()
    whole = Answers()
    for answers in heard:
        whole.errors |= answers.errors
        for code, seconds in answers.seconds.items():
            whole.seconds.setdefault(code, []).extend(seconds)
    return whole


@pytest.mark.parametrize("noun", ["predictor"])
def test_a_restart_under_load_is_heard_by_nobody(noun: str, caller: Caller) -> None:
    answers = during(caller, lambda: caller.stack.restart(noun))
    assert not answers.errors
    assert answers.count("OK") > 20


@pytest.mark.slow
def test_a_rolling_restart_of_everything_under_load_is_heard_by_nobody(caller: Caller) -> None:
    def roll() -> None:
        for noun in (*NOUNS, "minio"):
            caller.stack.restart(noun)

    answers = during(caller, roll)
    assert not answers.errors
    assert answers.count("OK") > 100


def test_a_run_gets_through_while_others_fill_the_queue(
    caller: Caller, undisturbed: Embedded
) -> None:
    wanted = wanted_run(400)
    ended = threading.Event()
    refused: list[Answers] = []

    def fill() -> None:
        while not ended.is_set():
            address, settings = caller.stack.address, settings_of(caller)
            flood = load(address, settings, [predict(2000)], callers=24, seconds=2)
            refused.append(asyncio.run(flood))

    thread = threading.Thread(target=fill)
    thread.start()
    try:
        run = caller.made(wanted)
    finally:
        ended.set()
        thread.join()
    assert sum(answers.count("RESOURCE_EXHAUSTED") for answers in refused)
    assert_same(run, wanted, caller, undisturbed)


@pytest.mark.slow
def test_overload_is_refused_at_once_and_costs_little_of_what_is_served(caller: Caller) -> None:
    def served(callers: int) -> Answers:
        calls = [predict(400)]
        address, settings = caller.stack.address, settings_of(caller)
        return asyncio.run(load(address, settings, calls, callers=callers, seconds=20))

    served(4)
    before, overload, after = served(4), served(40), served(4)
    assert set(overload.seconds) == {"OK", "RESOURCE_EXHAUSTED"}, overload.errors
    ratio = overload.count("OK") / max(before.count("OK"), after.count("OK"))
    refused = overload.percentile("RESOURCE_EXHAUSTED", 95)
    logger.info("goodput %.2f of its peak, 95 of 100 refused in %.1f ms", ratio, 1000 * refused)
    assert ratio > GOODPUT
    assert refused < REFUSED_WITHIN_SECONDS


@pytest.mark.slow
def test_memory_is_flat_over_thousands_of_calls(caller: Caller) -> None:
    calls = [*small_calls(), predict(5)]

    def ask(count: int) -> None:
        address, settings = caller.stack.address, settings_of(caller)
        answers = asyncio.run(load(address, settings, calls, callers=4, count=count))
        assert not answers.errors
        assert answers.count("OK") >= count

    ask(CALLS // 5)
    before = {noun: caller.stack.memory_bytes(noun) for noun in (*NOUNS, "envoy")}
    ask(CALLS)
    after = {noun: caller.stack.memory_bytes(noun) for noun in before}
    grown = {noun: after[noun] - before[noun] for noun in before}
    logger.info("bytes grown: %s", grown)
    assert max(grown.values()) < GROWTH_BYTES, grown
