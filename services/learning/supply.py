"""The batches of a training, from any step on, in memory that its device can fetch them from."""

from collections.abc import Callable
from typing import Generic, Protocol, Self, TypeVar

import torch

from services.learning.feeding import Feed


class Pinnable(Protocol):
    """A batch in memory."""

    def pinned(self) -> Self:
        """The same in memory that a GPU can read by itself."""


B = TypeVar("B", bound=Pinnable)


class Supply(Generic[B]):
    """Feeds a trainer what `make(step)` gives, pinned if `device` is a GPU.

    `make` follows from the step alone, and runs in a thread of its own from the first `next` on.
    """

    def __init__(self, make: Callable[[int], B], device: torch.device) -> None:
        self._make = _pinning(make, device) if device.type == "cuda" else make
        self._feed: Feed[B] | None = None
        self._waited_before = 0.0

    @property
    def waited_seconds(self) -> float:
        """How long `next` has waited in all."""
        return self._waited_before + (self._feed.waited_seconds if self._feed else 0.0)

    def next(self, step: int) -> B:
        """The batch of `step`, which follows the one before, unless it is the first since `close`.

        Raises what `make` raised.
        """
        if self._feed is None:
            self._feed = Feed(self._make, step)
        return self._feed.next()

    def close(self) -> None:
        """Ends the thread; another `next` starts it again, at any step."""
        if self._feed is not None:
            self._feed.close()
            self._waited_before = self.waited_seconds
            self._feed = None


def _pinning(make: Callable[[int], B], device: torch.device) -> Callable[[int], B]:
    def pinned(step: int) -> B:
        # A new thread is on the first GPU, whatever the thread that started it is on.
        with torch.cuda.device(device):
            return make(step).pinned()

    return pinned
