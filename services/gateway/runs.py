"""Runs as resources: created once for the same request and inputs, watched, cancelled, resumed."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import structlog
from demiurge.gateway.v1.gateway_service_pb2 import Failure, Run, RunSpec, State
from demiurge.gateway.v1.run_record_pb2 import RunRecord

from services.errors import DemiurgeError
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
    """A run at work in this process."""

    run: Run
    task: "asyncio.Task[None] | None" = None
    watchers: set[asyncio.Event] = field(default_factory=set)

    def changed(self) -> None:
        """Wakes everyone who watches."""
        self.run.update_time.CopyFrom(now())
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
        self._creating = asyncio.Lock()

    async def create(self, spec: RunSpec) -> Run:
        """Starts the run that `spec` is over what is there now, or attaches to it, or resumes it.

        Raises what taking the snapshot raises; nothing is written then.
        """
        snapshot = await take_snapshot(spec, self._library, self._peers)
        name = run_id(spec, snapshot)
        async with self._creating:
            if name in self._active:
                return self._active[name].run
            ended = await asyncio.to_thread(self._runs.end, name)
            if ended is not None and ended.state == State.STATE_SUCCEEDED:
                return ended
            record = RunRecord(id=name, spec=spec, snapshot=snapshot, create_time=now())
            await asyncio.to_thread(self._runs.save_request, record)
            active = ActiveRun(new_run(record))
            self._active[name] = active
            active.task = asyncio.create_task(self._execute(record, active), name=name)
            return active.run

    async def get(self, name: str) -> Run:
        """The run as it stands; NotFoundError, naming it, if there is none."""
        if name in self._active:
            return self._active[name].run
        return await asyncio.to_thread(self._stored, name)

    async def page(self, after: str, size: int) -> tuple[list[Run], str]:
        """Runs, newest first, from the one after id `after` on; and the id to go on from."""
        names = await asyncio.to_thread(lambda: list(self._runs.ids()))
        runs = [await self.get(name) for name in names]
        runs.sort(key=lambda run: (run.create_time.ToNanoseconds(), run.id), reverse=True)
        ids = [run.id for run in runs]
        start = ids.index(after) + 1 if after in ids else 0
        page = runs[start : start + size]
        return page, page[-1].id if start + size < len(runs) else ""

    async def watch(self, name: str) -> AsyncIterator[Run]:
        """The run now and at every change, the last time as it ended."""
        active = self._active.get(name)
        if active is None:
            yield await self.get(name)
            return
        event = asyncio.Event()
        active.watchers.add(event)
        try:
            while True:
                event.clear()
                yield active.run
                if active.run.state in ENDED:
                    return
                await event.wait()
        finally:
            active.watchers.discard(event)

    async def cancel(self, name: str) -> Run:
        """Stops the run, if it is at work here; returns how it stands."""
        active = self._active.get(name)
        if active is not None and active.task is not None:
            active.task.cancel()
            await asyncio.wait([active.task])
            return active.run
        return await self.get(name)

    async def close(self) -> None:
        """Interrupts all runs; they resume from what they finished."""
        tasks = [active.task for active in self._active.values() if active.task]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _execute(self, record: RunRecord, active: ActiveRun) -> None:
        run = active.run
        log = logger.bind(run_id=run.id)
        try:
            # A run outlives the call that created it, and so must not inherit its deadline.
            with serving(Call(run.id)):
                await self._pipeline.execute(record, run, active.changed)
        except asyncio.CancelledError:
            self._interrupt(run, State.STATE_CANCELLED)
            log.info("run cancelled")
        except DemiurgeError as error:
            self._interrupt(run, State.STATE_FAILED)
            run.failure.CopyFrom(
                Failure(code=code_of(error).value[0], reason=error.reason, message=error.message)
            )
            log.warning("run failed", reason=error.reason, error=error.message)
        except Exception:
            self._interrupt(run, State.STATE_FAILED)
            run.failure.CopyFrom(
                Failure(code=13, reason="INTERNAL", message="a defect: see the gateway's log")
            )
            log.exception("run failed")
        else:
            log.info("run succeeded")
        run.update_time.CopyFrom(now())
        await asyncio.to_thread(self._runs.save_end, run)
        del self._active[run.id]
        active.changed()

    @staticmethod
    def _interrupt(run: Run, state: State.ValueType) -> None:
        run.state = state
        for stage in run.stages:
            if stage.state == State.STATE_RUNNING:
                stage.state = state

    def _stored(self, name: str) -> Run:
        ended = self._runs.end(name)
        if ended is not None:
            return ended
        run = new_run(self._runs.request(name))
        self._interrupt(run, State.STATE_FAILED)
        run.failure.CopyFrom(
            Failure(
                code=14,
                reason="INTERRUPTED",
                message="the gateway stopped before the run ended: create the run again, and it "
                "resumes from what it had finished",
            )
        )
        return run
