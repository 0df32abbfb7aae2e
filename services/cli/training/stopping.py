"""What ends a training before its last step: SIGTERM, Ctrl-C, or the time that it was given."""

import signal
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopping:
    """Inside, the first signal is noted and the step goes on to its end; a second one is obeyed.

    A signal that is ignored stays so. Threads other than the main one hear none.
    """

    def __init__(self, minutes: float | None = None) -> None:
        self.signal = 0
        """The number of the signal, or 0."""
        self._end = float("inf") if minutes is None else time.monotonic() + 60 * minutes
        self._before: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    @property
    def out_of_time(self) -> bool:
        """Whether the minutes are over."""
        return time.monotonic() >= self._end

    def __enter__(self) -> "Stopping":
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                try:
                    self._before[number] = signal.signal(number, self._note)
                except ValueError:
                    # Not the main thread.
                    break
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - signal's call
        self.signal = number
        self.__exit__(None, None, None)
