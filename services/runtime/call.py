"""The call being served: its ids and its deadline, for whatever runs on its behalf."""

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import structlog

REQUEST_ID_KEY = "x-request-id"
RUN_ID_KEY = "x-run-id"
TRACE_KEY = "traceparent"


@dataclass(frozen=True)
class Call:
    """`deadline` is a reading of time.monotonic(), None if the caller set none.

    `run_id` is that of the run whose work this is, `traceparent` the place in a trace, as in
    https://www.w3.org/TR/trace-context/; both may be "".
    """

    request_id: str
    deadline: float | None = None
    run_id: str = ""
    traceparent: str = ""

    @property
    def ids(self) -> dict[str, str]:
        """The ids that log lines carry."""
        trace_id = self.traceparent.split("-")[1] if self.traceparent else ""
        found = {"request_id": self.request_id, "run_id": self.run_id, "trace_id": trace_id}
        return {name: value for name, value in found.items() if value}

    @property
    def metadata(self) -> list[tuple[str, str]]:
        """What calls made on its behalf carry on."""
        found = {
            REQUEST_ID_KEY: self.request_id,
            RUN_ID_KEY: self.run_id,
            TRACE_KEY: self.traceparent,
        }
        return [(name, value) for name, value in found.items() if value]

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
    """Makes `call` the current one: logs carry its ids, calls made inside pass all of it on."""
    token = _current.set(call)
    try:
        with structlog.contextvars.bound_contextvars(**call.ids):
            yield call
    finally:
        _current.reset(token)
