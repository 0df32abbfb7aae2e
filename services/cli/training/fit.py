"""Fitting: the loop around a trainer, from its first step, or the one it stood at, to its last."""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from services.cli.progress import Reporter
from services.cli.training.clock import Clock
from services.cli.training.course import Course, Pace
from services.cli.training.keeper import Keeper
from services.cli.training.plan import Plan
from services.cli.training.stopping import Stopping
from services.cli.training.trainer import Trainer

if TYPE_CHECKING:
    from torch import Tensor

    from services.learning.world import World


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
    with Stopping(plan.minutes) as stopping:
        fitting = Fitting(trainer, plan, course, keeper, reporter)
        clock = Clock(plan, stopping, world)
        fitting.begins()
        over = fitting.is_over
        if over:
            fitting.tell_if_patience_ended()
        while not over:
            losses = trainer.step()
            told = clock.ask()
            over = told.over or trainer.steps == plan.steps
            validates = over or told.validate or plan.validates_after(trainer.steps)
            if validates or plan.logs_after(trainer.steps):
                fitting.logged(losses)
            if validates:
                fitting.validated(last=over)
                clock.validated()
                # On a GPU, two processes may differ in the last bit of a figure.
                over = over or world.from_first(fitting.is_over)
                fitting.tell_if_patience_ended()
            elif told.checkpoint or told.signal:
                fitting.stored()
                clock.stored()
            fitting.show()
            if told.signal:
                fitting.stop(told.signal)
    if stopping.signal:
        fitting.stop(stopping.signal)
    return fitting.course


class Fitting:
    """What is done around the steps of one sitting."""

    def __init__(
        self,
        trainer: Trainer,
        plan: Plan,
        course: Course,
        keeper: Keeper | None,
        reporter: Reporter,
    ) -> None:
        self.course = course
        """How far the training has come."""
        self._trainer = trainer
        self._plan = plan
        self._keeper = keeper
        self._reporter = reporter
        self._began, self._seconds_before = time.monotonic(), course.seconds
        self._pace = Pace(trainer.steps, trainer.waited_seconds)
        self._read: dict[str, float] = {}

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to train: no steps, or no patience."""
        return self._plan.is_over(self._trainer.steps, self.course.worse)

    def tell_if_patience_ended(self) -> None:
        """Says so if no step did, but validations that were no better."""
        if self._plan.has_no_patience_left(self.course.worse):
            self._reporter.say(
                f"training {self._plan.family}: over after step {self._trainer.steps}: "
                f"{self.course.worse} validations were no better than that of step "
                f"{self.course.best_step}"
            )

    def begins(self) -> None:
        """Makes up for a version that a kill prevented, between its checkpoint and itself."""
        step = self._trainer.steps
        if self._keeper and self.course.validated == step > 0:
            self._keeper.version(self._trainer, self.course, last=self.is_over)
        self._paused()
        self.show()

    def logged(self, losses: "Mapping[str, Tensor]") -> None:
        """Reads losses and logs them; it waits for the device, so not after every step."""
        self._read = {name: float(value) for name, value in losses.items()}
        speed = self._pace.since(self._trainer.steps, self._trainer.waited_seconds)
        if self._keeper:
            self._keeper.log(self._trainer.steps, self._read | speed)

    def validated(self, *, last: bool) -> None:
        """Validates, logs the figures, and stores a checkpoint, and a version if it is worth it."""
        trainer, step = self._trainer, self._trainer.steps
        figures = {f"validation/{name}": value for name, value in trainer.validate().items()}
        chosen_by = f"validation/{self._plan.figure}"
        self.course = self.course.at(step, self._read | figures, chosen_by)
        if self._keeper:
            self._keeper.log(step, figures)
            self.stored()
            self._keeper.version(trainer, self.course, last=last or self.is_over)
            self._keeper.listen(trainer)
        self._paused()

    def stored(self) -> None:
        """Stores a checkpoint."""
        seconds = self._seconds_before + time.monotonic() - self._began
        self.course = replace(self.course, seconds=seconds)
        if self._keeper:
            self._keeper.checkpoint(self._trainer, self.course)
        self._paused()

    def show(self) -> None:
        """Says how far it has come: in steps, or in seconds where time alone ends it."""
        plan, step = self._plan, self._trainer.steps
        figure = self.course.figures.get(f"validation/{plan.figure}")
        note = "" if figure is None else f"{plan.figure} {figure:.4g}"
        done, total = step, plan.steps
        if total is None:
            note = f"step {step}  {note}".rstrip()
            total = max(round(60 * (plan.minutes or 0)), 1)
            done = min(round(time.monotonic() - self._began), total)
        self._reporter.update(f"training {plan.family}", done, total, note)

    def stop(self, number: int) -> None:
        """Raises SystemExit for a signal, and says how to go on."""
        if self._keeper:
            record = self._keeper.record
            call = f"demiurge train {record.family} --resume {record.id}"
            if self._plan.steps is None and self._plan.minutes is not None:
                call += f" --minutes {self._plan.minutes:g}"
            self._reporter.say(
                f"training {record.family}: stopped after step {self._trainer.steps}, which is "
                f"kept; the same call goes on, and so does `{call}`"
            )
        raise SystemExit(128 + number)

    def _paused(self) -> None:
        """The pace is that of the steps, whatever was done between them."""
        self._pace.restart(self._trainer.steps, self._trainer.waited_seconds)
