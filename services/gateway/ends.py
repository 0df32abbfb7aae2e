"""How runs end: succeeded, cancelled, failed for a reason, or interrupted and nobody's for now."""

import asyncio

import grpc
import structlog
from demiurge.gateway.v1.gateway_service_pb2 import Failure, Run, State

from services.errors import (
    ConflictError,
    CorruptObjectError,
    DemiurgeError,
    InvalidInputError,
    NotFoundError,
    StorageFullError,
    UnavailableError,
)
from services.runtime.status import code_of

logger = structlog.get_logger(__name__)

ENDED = {State.STATE_SUCCEEDED, State.STATE_FAILED, State.STATE_CANCELLED}
OUTCOMES = ("succeeded", "failed", "cancelled", "interrupted")
INTERRUPTED = "INTERRUPTED"
RESUMES = "create the run again, and it resumes from what it had finished"
# The same request would fail in the same way again.
FINAL = (InvalidInputError, NotFoundError, ConflictError)


def conclude(run: Run, work: "asyncio.Task[None]", *, cancelled: bool) -> None:
    """Gives `run` the end that its work came to; a stop is `cancelled`, or else interrupted."""
    log = logger.bind(run_id=run.id)
    if work.cancelled():
        log.info("run cancelled" if cancelled else "run interrupted")
        if cancelled:
            stop(run, State.STATE_CANCELLED)
        else:
            fail(run, interruption())
        return
    error = work.exception()
    if error is None:
        run.state = State.STATE_SUCCEEDED
        log.info("run succeeded")
    else:
        fail(run, failure_of(error))
        # Whoever follows the run hears of what was foreseen; a defect is told here alone.
        foreseen = isinstance(error, DemiurgeError)
        told = log.warning if foreseen else log.error
        told("run failed", error=run.failure.message, exc_info=None if foreseen else error)


def stop(run: Run, state: State.ValueType) -> None:
    """Ends `run`, and the stage that was at work."""
    run.state = state
    for stage in run.stages:
        if stage.state == State.STATE_RUNNING:
            stage.state = state


def fail(run: Run, failure: Failure) -> None:
    """Ends `run` by a failure."""
    stop(run, State.STATE_FAILED)
    run.ClearField("result")
    run.failure.CopyFrom(failure)


def failure_of(error: BaseException) -> Failure:
    """The error as runs tell it; what nobody foresaw is for the log alone."""
    if not isinstance(error, DemiurgeError):
        error = DemiurgeError("a defect: see the gateway's log")
    message = error.message
    if isinstance(error, CorruptObjectError) and "demiurge doctor" not in message:
        message += "; `demiurge doctor --deep --mend` mends what can be made again"
    if not isinstance(error, FINAL):
        then = "then " if isinstance(error, CorruptObjectError | StorageFullError) else ""
        message += f"; {then}{RESUMES}"
    return Failure(code=code_of(error).value[0], reason=error.reason, message=message)


def interruption(why: str = "the gateway stopped before the run ended") -> Failure:
    """What is told of a run that no gateway is at work on, and that has not ended."""
    return Failure(
        code=grpc.StatusCode.UNAVAILABLE.value[0],
        reason=INTERRUPTED,
        message=f"{why}: {RESUMES}",
    )


def unrecorded(error: Exception) -> Failure:
    """What is told of a run whose end the store could not take."""
    if isinstance(error, UnavailableError):
        return interruption(f"its end could not be recorded, since {error.message}")
    return failure_of(error)


def interrupted(run: Run) -> bool:
    """Whether it has not ended, but nobody is at work on it."""
    return run.failure.reason == INTERRUPTED


def outcome_of(ended: Run) -> str:
    """How it ended, as one of OUTCOMES."""
    if interrupted(ended):
        return "interrupted"
    return State.Name(ended.state).removeprefix("STATE_").lower()
