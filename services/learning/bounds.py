"""What single values of a training's settings must be, whatever the family."""

import math
from collections.abc import Sequence
from typing import Any

from services.errors import InvalidInputError


def refuse_beyond_bounds(
    settings: Any,
    *,
    positive: Sequence[str] = (),
    not_negative: Sequence[str] = (),
    below_one: Sequence[str] = (),
) -> None:
    """Raises InvalidInputError naming the first field whose number is not what it must be.

    `below_one` are those from 0 to below 1. None of them may be infinite, or NaN.
    """
    for name in positive:
        value = getattr(settings, name)
        _refuse_unless(0 < value < math.inf, name, value, "positive")
    for name in not_negative:
        value = getattr(settings, name)
        _refuse_unless(0 <= value < math.inf, name, value, "0 or more")
    for name in below_one:
        value = getattr(settings, name)
        _refuse_unless(0 <= value < 1, name, value, "from 0 to below 1")


def refuse_unknown(name: str, value: str, known: Sequence[str]) -> None:
    """Raises InvalidInputError telling the known values, if this is none of them."""
    _refuse_unless(value in known, name, repr(value), f"one of {', '.join(known)}")


def _refuse_unless(kept: bool, name: str, value: Any, wanted: str) -> None:
    if not kept:
        raise InvalidInputError(f"{name} is {value}: it must be {wanted}", culprit=name)
