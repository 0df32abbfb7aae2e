"""Learning rates that follow from the step alone, so that a resumed training needs no scheduler."""

import math
from typing import Literal

Schedule = Literal["constant", "cosine"]


def learning_rate(
    step: int, base: float, schedule: Schedule, *, steps: int | None, floor: float
) -> float:
    """The rate of the update that follows `step` others.

    `constant` is `base` throughout. `cosine` falls from `base` to `floor` times `base` at `steps`,
    and stays there (Loshchilov & Hutter, 2017, arXiv:1608.03983).
    """
    if schedule == "constant" or steps is None:
        return base
    done = min(step / steps, 1.0)
    return base * (floor + (1 - floor) * (1 + math.cos(math.pi * done)) / 2)
