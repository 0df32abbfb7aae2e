"""Runs as resources: created once for the same request and inputs, watched, cancelled, resumed."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import grpc
import structlog
from demiurge.gateway.v1.gateway_service_pb2 import Failure, Run, RunSpec, State
from demiurge.gateway.v1.run_record_pb2 import RunRecord

from services.errors import DemiurgeError, InvalidInputError, UnavailableError
from services.gateway.audio_library import AudioLibrary
from services.gateway.peers import Peers
from services.gateway.pipeline import Pipeline, new_run, now
from services.gateway.run_store import RunStore
from services.gateway.snapshot import run_id, take_snapshot
from services.runtime.call import Call, serving
from services.runtime.status import code_of

logger = structlog.get_logger(__name__)

ENDED = {State.STATE_SUCCEEDED, State.STATE_FAILED, State.STATE_CANCELLED}


@dataclass(eq=False)
class ActiveRun:
    """A run at work in this process: `work` makes the piece, `end` records how that went."""

    run: Run
    work: "asyncio.Task[None]" = field(init=False)
    end: "asyncio.Task[None]" = field(init=False)
    watchers: set[asyncio.Event] = field(default_factory=set)

    def changed(self) -> None:
        """Dates the change, and tells everyone who watches."""
        self.run.update_time.CopyFrom(now())
        self.tell()

    def tell(self) -> None:
        """Wakes everyone who watches."""
        for watcher in self.watchers:
            watcher.set()


class Runs:
    """All runs of the store; those at work here, live."""

    def __init__(
        self, runs: RunStore, library: AudioLibrary, peers: Peers, pipeline: Pipeline
    ) -> None:
        self._runs = runs
        self._library = library
        self._peers = peers
        self._pipeline = pipeline
        self._active: dict[str, ActiveRun] = {}
        # Held while stored runs are read, too: one that is just beginning looks interrupted.
        self._records = asyncio.Lock()
        self._draining = False
        self._closing = False

    async def create(self, spec: RunSpec) -> Run:
        """Starts the run that `spec` is over what is there now, or attaches to it, or resumes it.

        A run whose piece was deleted is run again.

        Raises what taking the snapshot raises; nothing is written then.
        """
        snapshot = await take_snapshot(spec, self._library, self._peers)
        name = run_id(spec, snapshot)
        async with self._records:
            if name in self._active:
                return self._active[name].run
            ended = await asyncio.to_thread(self._runs.end, name)
            if (
                ended is not None
                and ended.state == State.STATE_SUCCEEDED
                and await self._pipeline.stands(ended)
            ):
                return ended
            record = RunRecord(id=name, spec=spec, snapshot=snapshot, create_time=now())
            return self._start(await asyncio.to_thread(self._runs.begin, record))

    async def get(self, name: str) -> Run:
        """The run as it stands; NotFoundError, naming it, if there is none."""
        async with self._records:
            if name in self._active:
                return self._active[name].run
            return await asyncio.to_thread(self._stored, name)

    async def page(self, after: str, size: int) -> tuple[list[Run], str]:
        """Runs, newest first, from the one after id `after` on; and the id to go on from.

        Damaged ones are logged and left out. Raises InvalidInputError if `after` is no run.
        """
        async with self._records:
            runs = await asyncio.to_thread(self._all_stored, set(self._active))
            runs += [active.run for active in self._active.values()]
        runs.sort(key=lambda run: (run.create_time.ToNanoseconds(), run.id), reverse=True)
        ids = [run.id for run in runs]
        if after and after not in ids:
            raise InvalidInputError(f"{after!r} is no page token", culprit="page_token")
        start = ids.index(after) + 1 if after else 0
        page = runs[start : start + size]
        return page, page[-1].id if start + size < len(runs) else ""

    async def watch(self, name: str) -> AsyncIterator[Run]:
        """The run now and at every change, the last time as it ended.

        Raises UnavailableError when the gateway drains: to watch is no work that a stop waits for.
        """
        run = await self.get(name)
        active = self._active.get(name)
        if active is None:
            yield run
            return
        event = asyncio.Event()
        active.watchers.add(event)
        try:
            while True:
                event.clear()
                shown = active.run
                yield shown
                # Not active.run: it may have ended while this was on its way.
                if shown.state in ENDED:
                    return
                if self._draining:
                    raise UnavailableError(
                        f"this gateway is stopping: watch run {name} again once it is back"
                    )
                await event.wait()
        finally:
            active.watchers.discard(event)

    async def cancel(self, name: str) -> Run:
        """Stops the run, if it is at work here; returns how it stands."""
        active = self._active.get(name)
        if active is None:
            return await self.get(name)
        active.work.cancel()
        await asyncio.wait([active.end])
        return active.run

    def drain(self) -> None:
        """Sends those away who watch; the runs go on."""
        self._draining = True
        for active in self._active.values():
            active.tell()

    async def close(self) -> None:
        """Interrupts all runs; they resume from what they finished."""
        self._closing = True
        active = list(self._active.values())
        for each in active:
            each.work.cancel()
        if active:
            await asyncio.wait([each.end for each in active])

    def _start(self, record: RunRecord) -> Run:
        active = self._active[record.id] = ActiveRun(new_run(record))
        # A run outlives the call that created it, and so must not inherit its deadline.
        with serving(Call(record.id)):
            active.work = asyncio.create_task(
                self._pipeline.execute(record, active.run, active.changed)
            )
            active.end = asyncio.create_task(self._end(active))
        return active.run

    async def _end(self, active: ActiveRun) -> None:
        """Records how the run ends, and only then lets it be seen. Nothing cancels this."""
        await asyncio.wait([active.work])
        ended = Run()
        ended.CopyFrom(active.run)
        ended.update_time.CopyFrom(now())
        conclude(ended, active.work, cancelled=not self._closing)
        try:
            # A run that the gateway leaves lying has not ended.
            if not (self._closing and active.work.cancelled()):
                await asyncio.to_thread(self._runs.save_end, ended)
        except Exception as error:
            logger.exception("run could not be recorded", run_id=ended.id)
            fail(ended, failure_of(error))
        active.run = ended
        del self._active[ended.id]
        active.tell()

    def _all_stored(self, but: set[str]) -> list[Run]:
        runs = []
        for name in self._runs.ids():
            if name in but:
                continue
            try:
                runs.append(self._stored(name))
            except DemiurgeError as error:
                logger.warning("run left out", run_id=name, error=error.message)
        return runs

    def _stored(self, name: str) -> Run:
        ended = self._runs.end(name)
        if ended is not None:
            return ended
        run = new_run(self._runs.request(name))
        fail(run, interruption())
        return run


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
        defect = None if isinstance(error, DemiurgeError) else error
        log.warning("run failed", error=run.failure.message, exc_info=defect)


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
    return Failure(code=code_of(error).value[0], reason=error.reason, message=error.message)


def interruption() -> Failure:
    """What is told of a run whose gateway is no more."""
    return Failure(
        code=grpc.StatusCode.UNAVAILABLE.value[0],
        reason="INTERRUPTED",
        message="the gateway stopped before the run ended: create the run again, and it resumes "
        "from what it had finished",
    )
