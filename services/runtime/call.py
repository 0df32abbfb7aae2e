"""The call being served: its request id and its deadline, for whatever runs on its behalf."""

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import structlog

REQUEST_ID_KEY = "x-request-id"


@dataclass(frozen=True)
class Call:
    """`deadline` is a reading of time.monotonic(), None if the caller set none."""

    request_id: str
    deadline: float | None = None

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the deadline, never negative; None if there is none."""
        return None if self.deadline is None else max(self.deadline - time.monotonic(), 0.0)


_current: ContextVar[Call | None] = ContextVar("demiurge_call", default=None)


def current_call() -> Call | None:
    """The call that this code runs for, if there is one."""
    return _current.get()


def current_deadline() -> float | None:
    """The deadline of the current call, a reading of time.monotonic()."""
    call = _current.get()
    return call.deadline if call else None


def new_request_id() -> str:
    """A request id for a call that came without one."""
    return uuid.uuid4().hex


@contextmanager
def serving(call: Call) -> Iterator[Call]:
    """Makes `call` the current one: logs carry its id, calls made inside pass on both."""
    token = _current.set(call)
    try:
        with structlog.contextvars.bound_contextvars(request_id=call.request_id):
            yield call
    finally:
        _current.reset(token)
