import time
from typing import TypeVar

import pytest

from services.cli.training.clock import Clock
from services.cli.training.plan import Plan
from services.cli.training.stopping import Stopping
from services.learning.world import ALONE, World

T = TypeVar("T")


class Two(World):
    """Two processes, of which the first counts how often they agree."""

    asked: list[float]

    def from_first(self, value: T) -> T:
        self.asked.append(time.monotonic())
        return value


@pytest.fixture
def two() -> Two:
    world = Two(0, 2)
    object.__setattr__(world, "asked", [])
    return world


def at_steps(
    clock: Clock, seconds: list[float], monkeypatch: pytest.MonkeyPatch, begin: float
) -> None:
    now = begin
    for each in seconds:
        now += each
        monkeypatch.setattr(time, "monotonic", lambda now=now: now)
        clock.ask()


@pytest.mark.parametrize("step", [0.001, 0.1, 0.7, 5.0])
def test_several_processes_agree_about_once_a_second_however_long_a_step_is(
    two: Two, monkeypatch: pytest.MonkeyPatch, step: float
) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    clock = Clock(Plan("melgan", "error", 10**6), Stopping(), two)
    steps = round(100 / step)
    at_steps(clock, [step] * steps, monkeypatch, 0.0)
    gaps = [after - before for before, after in zip(two.asked, two.asked[1:], strict=False)]
    assert max(gaps) < max(2 * step, 1.001)
    assert len(gaps) < 220


def test_steps_that_become_slow_are_soon_asked_after_again(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    clock = Clock(Plan("melgan", "error", 10**6), Stopping(), two)
    at_steps(clock, [0.1] * 200, monkeypatch, 0.0)
    two.asked.clear()
    at_steps(clock, [2.0] * 30, monkeypatch, 20.0)
    assert two.asked[1:] == pytest.approx(
        [two.asked[1] + 2.0 * n for n in range(len(two.asked) - 1)]
    )


def test_time_alone_says_when_to_validate_and_when_to_store(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    plan = Plan("melgan", "error", None, minutes=20, checkpoint_minutes=1)
    clock = Clock(plan, Stopping(), ALONE)
    told = []
    for minute in range(1, 5):
        monkeypatch.setattr(time, "monotonic", lambda minute=minute: 60.0 * minute)
        told.append(clock.ask())
        clock.validated() if told[-1].validate else clock.stored()
    assert [each.validate for each in told] == [False, True, False, True]
    assert all(each.checkpoint for each in told)
