"""Who may work on a collection at once: any number that use it, or one that takes it apart."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Condition

from services.query.index import Checkpoint

_CHECKED_EVERY_SECONDS = 0.1


class Turns:
    """Of one process: of several that share a server, each has its own.

    Whoever waits calls `checkpoint` all the time, and waits no longer where it raises.
    """

    def __init__(self) -> None:
        self._changed = Condition()
        self._shared: Counter[str] = Counter()
        self._alone: Counter[str] = Counter()
        self._working_alone: set[str] = set()

    @contextmanager
    def shared(self, name: str, checkpoint: Checkpoint) -> Iterator[None]:
        """Beside others, but for one that is alone or waits to be."""
        with self._changed:
            self._await(lambda: not self._alone[name], checkpoint)
            self._shared[name] += 1
        try:
            yield
        finally:
            with self._changed:
                self._leave(self._shared, name)

    @contextmanager
    def alone(self, name: str, checkpoint: Checkpoint) -> Iterator[None]:
        """Beside nobody."""
        with self._changed:
            # Counted before its turn, or those who share could go on for ever.
            self._alone[name] += 1
            try:
                self._await(
                    lambda: not self._shared[name] and name not in self._working_alone, checkpoint
                )
            except BaseException:
                self._leave(self._alone, name)
                raise
            self._working_alone.add(name)
        try:
            yield
        finally:
            with self._changed:
                self._working_alone.remove(name)
                self._leave(self._alone, name)

    def _await(self, free: Callable[[], bool], checkpoint: Checkpoint) -> None:
        while not free():
            self._changed.wait(_CHECKED_EVERY_SECONDS)
            checkpoint()

    def _leave(self, counted: Counter[str], name: str) -> None:
        counted[name] -= 1
        # Names that nobody works on are not kept.
        if not counted[name]:
            del counted[name]
        self._changed.notify_all()
