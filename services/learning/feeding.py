"""A feed: the batches of the next steps, readied by a thread while the device computes."""

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")


class Feed(Generic[T]):
    """`make(step)` for step after step, in order, `ahead` of them readied beforehand.

    `make` runs in one thread and must follow from the step alone. Nothing is made before the first
    `next`. A feed that is forgotten ends by itself; `close` ends it at once.
    """

    def __init__(self, make: Callable[[int], T], first_step: int, ahead: int = 2) -> None:
        self.waited_seconds = 0.0
        """How long `next` has waited in all: time for which the device had nothing to do."""
        self._make = make
        self._step = first_step
        self._ahead = ahead
        self._ready: deque[Future[T]] = deque()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="feed")

    def next(self) -> T:
        """The next step's batch.

        Raises what `make` raised for this step; the call after that tries the same step again.
        RuntimeError if the feed is closed.
        """
        while len(self._ready) <= self._ahead:
            step = self._step + len(self._ready)
            self._ready.append(self._thread.submit(self._make, step))
        began = time.monotonic()
        try:
            batch = self._ready[0].result()
        except BaseException:
            self._drop()
            raise
        finally:
            self.waited_seconds += time.monotonic() - began
        self._ready.popleft()
        self._step += 1
        return batch

    def close(self) -> None:
        """Ends the thread, after what it is at; again changes nothing."""
        self._drop()
        self._thread.shutdown()

    def __enter__(self) -> "Feed[T]":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _drop(self) -> None:
        for batch in self._ready:
            batch.cancel()
        self._ready.clear()
