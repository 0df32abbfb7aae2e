"""The device queue: the thread that owns the device, or a few, and a bounded line before them."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

from services.errors import BusyError, CancelledError, TimeExceededError, UnavailableError
from services.runtime.call import current_deadline
from services.runtime.metrics import QueueMetrics

Checkpoint = Callable[[], None]
T = TypeVar("T")


class DeviceQueue:
    """Runs work in the order it came, one at a time or `workers` at once, in threads of its own.

    A servicer writes `await queue.run(lambda checkpoint: model.generate(..., checkpoint))`; work
    that takes long calls `checkpoint()` between chunks.
    """

    def __init__(
        self,
        capacity: int,
        *,
        metrics: QueueMetrics,
        name: str = "device",
        workers: int = 1,
    ) -> None:
        self._capacity = capacity
        self._name = name
        self._workers = workers
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix=name)
        self._lock = threading.Lock()
        self._unfinished = 0
        self._draining = False
        self._metrics = metrics
        self._metrics.capacity.set(capacity)

    async def run(self, work: Callable[[Checkpoint], T], *, deadline: float | None = None) -> T:
        """Waits in line, runs `work` with a checkpoint, and returns what it returns.

        `deadline` is a reading of time.monotonic(); that of the current call if None. The
        checkpoint raises CancelledError once the caller has gone, TimeExceededError after the
        deadline. Work whose caller went while it waited is never launched. Raises BusyError if
        `capacity` others wait already, and UnavailableError while draining.
        """
        if deadline is None:
            deadline = current_deadline()
        abandoned = threading.Event()

        def checkpoint() -> None:
            if abandoned.is_set():
                raise CancelledError("the caller has gone")
            if deadline is not None and time.monotonic() >= deadline:
                raise _late()

        def launch() -> T:
            checkpoint()
            return work(checkpoint)

        future = self._submit(launch)
        remaining = None if deadline is None else deadline - time.monotonic()
        try:
            async with asyncio.timeout(remaining) as scope:
                return await asyncio.wrap_future(future)
        except TimeoutError:
            if scope.expired():
                raise _late() from None
            raise
        finally:
            abandoned.set()

    async def drain(self) -> None:
        """Takes nothing new, and returns when all that was taken has ended."""
        self._draining = True
        await asyncio.to_thread(self._executor.shutdown)

    def expect_room(self) -> None:
        """Raises what `run` would raise now: before work that a refusal need not cost."""
        with self._lock:
            self._refuse_if_full()

    def _refuse_if_full(self) -> None:
        if self._draining:
            raise UnavailableError(f"the {self._name} queue is draining: ask another replica")
        # Those at work do not wait.
        if self._unfinished >= self._capacity + self._workers:
            self._metrics.refused.inc()
            raise BusyError(f"{self._capacity} wait for the {self._name} already: try again later")

    def _submit(self, launch: Callable[[], T]) -> "Future[T]":
        with self._lock:
            self._refuse_if_full()
            self._unfinished += 1
        came = time.monotonic()

        def begin() -> T:
            self._metrics.waiting.dec()
            self._metrics.wait.observe(time.monotonic() - came)
            with self._metrics.running.track_inprogress():
                return launch()

        self._metrics.waiting.inc()
        # The thread logs with the ids of the call that it works for.
        future = self._executor.submit(copy_context().run, begin)
        future.add_done_callback(self._finished)
        return future

    def _finished(self, future: "Future[T]") -> None:
        with self._lock:
            self._unfinished -= 1
        if future.cancelled():
            self._metrics.waiting.dec()


def _late() -> TimeExceededError:
    return TimeExceededError("the deadline passed before the answer; ask for less or wait longer")
