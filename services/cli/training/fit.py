"""Fitting: the loop around a trainer, from its first step, or the one it stood at, to its last."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from services.cli.progress import Reporter
from services.cli.training.course import Course, Pace
from services.cli.training.keeper import Keeper
from services.cli.training.stopping import Stopping
from services.cli.training.trainer import Trainer

if TYPE_CHECKING:
    from torch import Tensor

    from services.synth.training.world import World

VALIDATIONS = 10
"""Validations in the course of a training, the last step's among them."""
LOGS = 10
"""Times that losses are read from one validation to the next; each waits for the device."""
STEPS_BETWEEN_AGREEMENTS = 10
"""Several processes ask the first one so often whether to go on."""
CHECKPOINT_MINUTES = 10.0


@dataclass(frozen=True)
class Plan:
    """What the loop does, and until when."""

    family: str
    figure: str
    """The validation figure, the smaller the better, that `best` is chosen by."""
    steps: int | None
    """How many in all; None means until the minutes are over."""
    every: int | None = None
    """Steps from one validation to the next; None means a tenth of all steps, or of the minutes."""
    minutes: float | None = None
    """How long to train now; None means to the last step."""
    checkpoint_minutes: float = CHECKPOINT_MINUTES
    """The longest time from one checkpoint to the next."""

    @property
    def interval(self) -> int | None:
        """Steps from one validation to the next; None means that the clock says when."""
        if self.every is None and self.steps is not None:
            return max(self.steps // VALIDATIONS, 1)
        return self.every

    def validates_after(self, step: int) -> bool:
        """Whether this step is one that a validation follows."""
        return self.interval is not None and step % self.interval == 0

    @property
    def log_interval(self) -> int:
        """Steps from one reading of the losses to the next."""
        return max((self.interval or 100) // LOGS, 1)


class Told(NamedTuple):
    """What the clock and the signals say after a step; the same in all processes."""

    signal: int = 0
    over: bool = False
    validate: bool = False
    checkpoint: bool = False


class Clock:
    """Asked after each step what it is time for."""

    def __init__(self, plan: Plan, stopping: Stopping, world: "World") -> None:
        self._stopping = stopping
        self._world = world
        self._checkpoint_seconds = 60 * plan.checkpoint_minutes
        by_time = plan.interval is None and plan.minutes is not None
        self._validation_seconds = 60 * (plan.minutes or 0) / VALIDATIONS if by_time else None
        self._validated = self._stored = time.monotonic()

    def ask(self, step: int) -> Told:
        """What it is time for."""
        alone = self._world.size == 1
        if not alone and step % STEPS_BETWEEN_AGREEMENTS:
            return Told()
        now = time.monotonic()
        seconds = self._validation_seconds
        validate = seconds is not None and now - self._validated >= seconds
        store = now - self._stored >= self._checkpoint_seconds
        told = Told(self._stopping.signal, self._stopping.out_of_time, validate, store)
        return self._world.from_first(told)

    def validated(self) -> None:
        """To be told after a validation."""
        self._validated = time.monotonic()

    def stored(self) -> None:
        """To be told after a checkpoint."""
        self._stored = time.monotonic()


def fit(
    trainer: Trainer,
    plan: Plan,
    course: Course,
    keeper: Keeper | None,
    reporter: Reporter,
    world: "World",
) -> Course:
    """Trains on from where trainer and course stand to the end of the plan.

    `keeper` stores what comes of it, in the first process alone. Raises SystemExit with the status
    of the signal, 128 and its number, once all is stored, if one comes.
    """
    name = f"training {plan.family}"
    began, seconds_before = time.monotonic(), course.seconds
    pace = Pace(trainer.steps, trainer.waited_seconds)
    note = ""
    with Stopping(plan.minutes) as stopping:
        clock = Clock(plan, stopping, world)
        if keeper and course.validated == trainer.steps > 0:
            # Perhaps it was killed between the checkpoint and the version of this step.
            keeper.version(trainer, course, last=trainer.steps == plan.steps)
        _show(reporter, name, trainer.steps, plan, 0.0, note)
        while plan.steps is None or trainer.steps < plan.steps:
            losses = trainer.step()
            step, told = trainer.steps, clock.ask(trainer.steps)
            last = step == plan.steps or told.over
            validates = last or told.validate or plan.validates_after(step)
            reads = validates or step % plan.log_interval == 0
            if reads:
                figures = _read(losses)
                speed = pace.since(step, trainer.waited_seconds)
            if validates:
                figures |= {f"validation/{k}": v for k, v in trainer.validate().items()}
                course = course.at(step, figures, f"validation/{plan.figure}")
                clock.validated()
            if keeper and reads:
                keeper.log(step, figures | speed)
            if keeper and (validates or told.checkpoint or told.signal):
                course = replace(course, seconds=seconds_before + time.monotonic() - began)
                keeper.checkpoint(trainer, course)
                clock.stored()
            if keeper and validates:
                keeper.version(trainer, course, last=last)
            if validates:
                note = f"{plan.figure} {course.figures[f'validation/{plan.figure}']:.4g}"
            _show(reporter, name, step, plan, time.monotonic() - began, note)
            if told.signal:
                _stop(reporter, keeper, step, told.signal)
            if last:
                break
    if stopping.signal:
        _stop(reporter, keeper, trainer.steps, stopping.signal)
    return course


def _read(losses: "Mapping[str, Tensor]") -> dict[str, float]:
    """Reading a tensor waits for the device, so this is not done at every step."""
    return {name: float(value) for name, value in losses.items()}


def _show(reporter: Reporter, name: str, step: int, plan: Plan, seconds: float, note: str) -> None:
    if plan.steps is None and plan.minutes is not None:
        note = f"step {step}  {note}".rstrip()
        total = max(round(60 * plan.minutes), 1)
        reporter.update(name, min(round(seconds), total), total, note)
    elif plan.steps is not None:
        reporter.update(name, step, plan.steps, note)


def _stop(reporter: Reporter, keeper: Keeper | None, step: int, number: int) -> None:
    if keeper:
        reporter.say(
            f"training {keeper.record.family}: stopped after step {step}, which is kept; the same "
            f"call goes on, and so does `demiurge train {keeper.record.family} --resume "
            f"{keeper.record.id}`"
        )
    raise SystemExit(128 + number)
