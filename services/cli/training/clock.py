"""The clock of a sitting: what it is time for after a step, the same in all processes."""

import time
from typing import TYPE_CHECKING, NamedTuple

from services.cli.training.plan import Plan
from services.cli.training.stopping import Stopping

if TYPE_CHECKING:
    from services.learning.world import World

SECONDS_TO_AGREEMENT = 1.0
"""Several processes ask the first one about this often: torchrun kills 30 s after its SIGTERM."""


class Told(NamedTuple):
    """What the clock and the signals say after a step."""

    signal: int = 0
    over: bool = False
    validate: bool = False
    checkpoint: bool = False
    steps: int = 1
    """Steps until the clock is read again."""


class Clock:
    """Asked after each step what it is time for."""

    def __init__(self, plan: Plan, stopping: Stopping, world: "World") -> None:
        self._stopping = stopping
        self._world = world
        minutes = plan.validation_minutes
        self._validation_seconds = None if minutes is None else 60 * minutes
        self._checkpoint_seconds = 60 * plan.checkpoint_minutes
        self._validated = self._stored = self._asked = time.monotonic()
        self._steps = self._left = 1

    def ask(self) -> Told:
        """What it is time for; to be asked once after each step.

        Several processes agree about once a second, by the number of steps that take so long: each
        agreement is a message that all of them wait for.
        """
        self._left -= 1
        if self._left:
            return Told()
        told = self._world.from_first(self._read())
        self._steps = self._left = told.steps
        return told

    def _read(self) -> Told:
        now = time.monotonic()
        seconds = self._validation_seconds
        validate = seconds is not None and now - self._validated >= seconds
        store = now - self._stored >= self._checkpoint_seconds
        steps = 1 if self._world.size == 1 else self._steps_to_agreement(now - self._asked)
        self._asked = now
        return Told(self._stopping.signal, self._stopping.out_of_time, validate, store, steps)

    def _steps_to_agreement(self, seconds: float) -> int:
        """From how long the last ones took; twice as many at most, since steps may become slow."""
        fitting = self._steps * SECONDS_TO_AGREEMENT / max(seconds, 1e-9)
        return max(min(int(fitting), 2 * self._steps), 1)

    def validated(self) -> None:
        """To be told after a validation, with which a checkpoint is stored."""
        self._validated = self._stored = time.monotonic()

    def stored(self) -> None:
        """To be told after a checkpoint."""
        self._stored = time.monotonic()
