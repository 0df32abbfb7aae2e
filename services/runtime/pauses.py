"""Pauses between tries: ever longer, and never quite the same for two callers."""

import random
from collections.abc import Iterator


def pauses(first_seconds: float = 0.1, longest_seconds: float = 5.0) -> Iterator[float]:
    """Seconds to wait before each next try, without end.

    Jitter keeps callers that were refused together from coming back together.
    """
    pause = first_seconds
    while True:
        yield random.uniform(pause / 2, pause)  # noqa: S311 - no secret depends on it
        pause = min(2 * pause, longest_seconds)
