"""Whoever takes a collection apart is alone with it."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from services.errors import CancelledError
from services.query.index import never_stopped
from services.query.turns import Turns

PATIENCE_SECONDS = 30


class Waiting:
    """A checkpoint that tells when it is first called, and then may give up."""

    def __init__(self, *, gives_up: bool = False) -> None:
        self.called = threading.Event()
        self._gives_up = gives_up

    def __call__(self) -> None:
        self.called.set()
        if self._gives_up:
            raise CancelledError("nobody waits")


@pytest.fixture
def turns() -> Turns:
    return Turns()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as opened:
        yield opened


def shared(turns: Turns, name: str, checkpoint: Waiting, done: list[str]) -> None:
    with turns.shared(name, checkpoint):
        done.append("shared")


def alone(turns: Turns, name: str, checkpoint: Waiting, done: list[str]) -> None:
    with turns.alone(name, checkpoint):
        done.append("alone")


def test_one_waits_for_those_who_share_and_others_wait_for_that_one(
    turns: Turns, threads: ThreadPoolExecutor
) -> None:
    done: list[str] = []
    one, other = Waiting(), Waiting()
    futures: list[Future[None]] = []

    with turns.shared("birds", never_stopped), turns.shared("birds", never_stopped):
        futures.append(threads.submit(alone, turns, "birds", one, done))
        assert one.called.wait(PATIENCE_SECONDS)
        futures.append(threads.submit(shared, turns, "birds", other, done))
        assert other.called.wait(PATIENCE_SECONDS)
        assert done == []
        # Another collection's turn does not wait.
        alone(turns, "bats", Waiting(gives_up=True), done)
        assert done == ["alone"]

    for future in futures:
        future.result(PATIENCE_SECONDS)
    assert done == ["alone", "alone", "shared"]


def test_two_are_not_alone_together(turns: Turns, threads: ThreadPoolExecutor) -> None:
    done: list[str] = []
    waiting = Waiting()

    with turns.alone("birds", never_stopped):
        future = threads.submit(alone, turns, "birds", waiting, done)
        assert waiting.called.wait(PATIENCE_SECONDS)
        assert done == []

    future.result(PATIENCE_SECONDS)
    assert done == ["alone"]


def test_who_gives_up_waiting_keeps_nobody_off(turns: Turns) -> None:
    done: list[str] = []
    with turns.shared("birds", never_stopped):
        with pytest.raises(CancelledError):
            alone(turns, "birds", Waiting(gives_up=True), done)
        # Would wait for ever behind one who still waits.
        shared(turns, "birds", Waiting(gives_up=True), done)
    with turns.alone("birds", never_stopped), pytest.raises(CancelledError):
        shared(turns, "birds", Waiting(gives_up=True), done)
    alone(turns, "birds", Waiting(gives_up=True), done)

    assert done == ["shared", "alone"]
