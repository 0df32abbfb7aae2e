"""The course of a training: what the loop around a trainer must remember to go on exactly."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from services.errors import InvalidInputError


@dataclass(frozen=True)
class Course:
    """How far a training has come, beside what its trainer knows."""

    best: float = float("inf")
    """The best validation figure so far."""
    best_step: int = 0
    """Where it was reached."""
    figures: dict[str, float] = field(default_factory=dict)
    """What the last validation had to say."""
    validated: int = 0
    """The step of the last validation."""
    worse: int = 0
    """Validations since the best one."""
    seconds: float = 0.0
    """How long has been trained, in all sittings."""

    def at(self, step: int, figures: Mapping[str, float], chosen_by: str) -> "Course":
        """After a validation; a figure that is no number never counts as best.

        Raises InvalidInputError, naming those there are, if none is called `chosen_by`.
        """
        if chosen_by not in figures:
            raise InvalidInputError(
                f"no figure {chosen_by!r} to choose the best step by; there are "
                f"{', '.join(sorted(figures))}",
                culprit="validation_figure",
            )
        value = figures[chosen_by]
        best = (value, step, 0)
        if not value < self.best:
            best = (self.best, self.best_step, self.worse + 1)
        return replace(
            self,
            best=best[0],
            best_step=best[1],
            worse=best[2],
            figures=dict(figures),
            validated=step,
        )

    @property
    def is_best(self) -> bool:
        """Whether the last validation was the best one."""
        return self.validated == self.best_step > 0

    def to_state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return asdict(self)


class Pace:
    """How fast the steps go: measured from one question, or restart, to the next question."""

    def __init__(self, step: int, waited_seconds: float) -> None:
        self.restart(step, waited_seconds)

    def restart(self, step: int, waited_seconds: float) -> None:
        """Leaves out what came before, such as a validation."""
        self._last = time.monotonic(), step, waited_seconds

    def since(self, step: int, waited_seconds: float) -> dict[str, float]:
        """Steps per second, and the share of time for which the device waited for data."""
        now, (time_before, step_before, waited_before) = time.monotonic(), self._last
        self._last = now, step, waited_seconds
        seconds = max(now - time_before, 1e-9)
        return {
            "steps_per_second": (step - step_before) / seconds,
            "data_wait_share": min((waited_seconds - waited_before) / seconds, 1.0),
        }
