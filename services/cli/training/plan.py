"""The plan of a sitting: how long to train, and how often to log, validate and store."""

from dataclasses import dataclass

VALIDATIONS = 10
"""Validations in the course of a training, the last step's among them."""
MOST_MINUTES_TO_VALIDATION = 30.0
"""Where the clock says when to validate, it does so at least this often."""
LOGS = 10
"""Times that losses are read from one validation to the next; each waits for the device."""
MOST_STEPS_TO_LOG = 100
"""Losses are read at least this often."""
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
    patience: int = 0
    """Validations in a row without a better figure after which training ends; 0 means never."""
    checkpoint_minutes: float = CHECKPOINT_MINUTES
    """The longest time from one checkpoint to the next."""

    @property
    def interval(self) -> int | None:
        """Steps from one validation to the next; None means that the clock says when."""
        if self.every is None and self.steps is not None:
            return max(self.steps // VALIDATIONS, 1)
        return self.every

    @property
    def validation_minutes(self) -> float | None:
        """Minutes from one validation to the next; None means that the steps say when."""
        if self.interval is not None:
            return None
        if self.minutes is None:
            return MOST_MINUTES_TO_VALIDATION
        return min(self.minutes / VALIDATIONS, MOST_MINUTES_TO_VALIDATION)

    def validates_after(self, step: int) -> bool:
        """Whether this step is one that a validation follows."""
        return self.interval is not None and step % self.interval == 0

    def is_over(self, step: int, worse: int) -> bool:
        """Whether training ends after a step, with so many validations since the best one."""
        return self.has_no_step_left(step) or self.has_no_patience_left(worse)

    def has_no_step_left(self, step: int) -> bool:
        """Whether all planned steps are done."""
        return self.steps is not None and step >= self.steps

    def has_no_patience_left(self, worse: int) -> bool:
        """Whether so many validations since the best one end a training."""
        return 0 < self.patience <= worse

    def logs_after(self, step: int) -> bool:
        """Whether the losses of this step are read."""
        steps = min((self.interval or MOST_STEPS_TO_LOG) // LOGS, MOST_STEPS_TO_LOG)
        return step % max(steps, 1) == 0
