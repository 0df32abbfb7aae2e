"""Runs as resources: created once for the same request and inputs, watched, cancelled, resumed.

How a run stands is spread over these; where several speak, the uppermost is right:

    _active        memory   at work here                        from _begin to _end
    run.json       store    how it ended                        from _end to the next _begin
    live.json      store    at work at some gateway             from _begin to _end, each second
    cancel.json    store    cancelled                           from CancelRun to the next _begin
    _unrecorded    memory   an end that the store did not take  from _end to the next _begin
    request.json   store    interrupted                         from the first _begin on
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from weakref import WeakValueDictionary

import structlog
from demiurge.gateway.v1.gateway_service_pb2 import Run, RunSpec, State
from demiurge.gateway.v1.run_record_pb2 import RunRecord

from services.errors import DemiurgeError, NotReadyError, UnavailableError
from services.gateway.active_run import ActiveRun
from services.gateway.audio_library import AudioLibrary
from services.gateway.ends import (
    ENDED,
    OUTCOMES,
    conclude,
    fail,
    interrupted,
    outcome_of,
    unrecorded,
)
from services.gateway.live import BEAT_SECONDS, LiveRuns
from services.gateway.metrics import GatewayMetrics
from services.gateway.patience import Patience, in_thread
from services.gateway.peers import Peers
from services.gateway.pipeline import Pipeline, new_run
from services.gateway.predictors import settled
from services.gateway.resumption import Found, Resumption
from services.gateway.run_store import RunStore, now
from services.gateway.snapshot import run_id, take_snapshot
from services.gateway.stored_runs import StoredRuns
from services.runtime.call import Call, current_call, serving
from services.runtime.tracing import Tracing

logger = structlog.get_logger(__name__)

# CancelRun answers within a second, recorded or not: the store may be away.
PROMPT_SECONDS = 0.9
# What a stop of this gateway leaves to stores that hang.
CLOSING_SECONDS = 5.0
# A night's runs all at once would only wait for each other, some for too long.
TAKEN_UP_AT_ONCE = 4


class Runs:
    """All runs of the store; those at work here, live."""

    def __init__(
        self,
        records: RunStore,
        live: LiveRuns,
        *,
        library: AudioLibrary,
        peers: Peers,
        pipeline: Pipeline,
        patience: Patience,
        metrics: GatewayMetrics,
        tracing: Tracing | None = None,
    ) -> None:
        self._metrics = metrics
        self._tracing = tracing or Tracing()
        for state in OUTCOMES:
            # Shown from the beginning: nobody sees a counter rise that begins at one.
            self._metrics.runs_ended.labels(state)
        self._records = records
        self._live = live
        self._stored = StoredRuns(records, live)
        self._library = library
        self._peers = peers
        self._pipeline = pipeline
        self._patience = patience
        self._active: dict[str, ActiveRun] = {}
        # Ends that the store could not take: it knows of these runs only that nobody is at work.
        self._unrecorded: dict[str, Run] = {}
        self._resumption = Resumption(records.unended, self._take_up, self._has_room)
        # Held while a run begins or is deleted, so that it does so once.
        self._beginning = WeakValueDictionary[str, asyncio.Lock]()
        self._draining = asyncio.Event()
        self._closing = False

    async def create(self, spec: RunSpec) -> Run:
        """Starts the run that `spec` is over what is there now, or attaches to it, or resumes it.

        A run at work at another gateway goes on there, and here if that one stops. A run whose
        piece was deleted is run again.

        Raises what taking the snapshot raises; nothing is written then.
        """
        snapshot = await take_snapshot(spec, self._library, self._peers)
        spec = settled(spec, snapshot.predictor)
        name = run_id(spec, snapshot)
        record = RunRecord(id=name, spec=spec, snapshot=snapshot, create_time=now())
        while (active := self._active.get(name)) and active.stopping:
            await asyncio.wait([active.end])
        # Whoever asked may be gone, but a run half begun would look interrupted.
        return await asyncio.shield(asyncio.create_task(self._created(record)))

    async def get(self, name: str) -> Run:
        """The run as it stands; NotFoundError, naming it, if there is none."""
        active = self._active.get(name)
        run = active.run if active else await asyncio.to_thread(self._stored.run, name)
        return self._as_known_here(run)

    async def page(self, token: str, size: int) -> tuple[list[Run], str]:
        """Runs, newest first, from `token` on, and the token to go on from.

        Damaged ones are logged and left out. Raises InvalidInputError if `token` is none.
        """
        runs, following = await asyncio.to_thread(self._stored.page, token, size)
        return [self._as_known_here(run) for run in runs], following

    async def watch(self, name: str) -> AsyncIterator[Run]:
        """The run now and at every change, the last time as it ended, wherever it is at work.

        Raises UnavailableError when the gateway drains: to watch is no work that a stop waits for.
        """
        shown: Run | None = None
        while True:
            if active := self._active.get(name):
                async for run in active.states():
                    yield run
                    if run.state not in ENDED:
                        self._refuse_while_draining(name)
                return
            run = await self.get(name)
            taken_up = interrupted(run) and self._resumption.expects(name)
            if run != shown and not taken_up:
                shown = run
                yield run
            if run.state in ENDED and not taken_up:
                return
            self._refuse_while_draining(name)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._draining.wait(), BEAT_SECONDS)

    async def cancel(self, name: str) -> Run:
        """Stops the run, wherever it is at work; returns how it stands."""
        if active := self._active.get(name):
            active.work.cancel()
            active.beat.cancel()
            # Another gateway may be at work on it, too, if both were asked at once.
            asked = asyncio.create_task(self._ask_to_cancel(name))
            await asyncio.wait([active.end, asked], timeout=PROMPT_SECONDS)
            return active.ended or active.run
        run = await self.get(name)
        if run.state in ENDED and not interrupted(run):
            return run
        await asyncio.to_thread(self._records.ask_to_cancel, name)
        # The other gateway looks at each beat, unless it is gone.
        with suppress(TimeoutError):
            async with asyncio.timeout(self._live.lease_seconds + BEAT_SECONDS):
                async for run in self.watch(name):  # noqa: B007 - the last one is wanted
                    pass
        return run

    async def delete(self, name: str) -> None:
        """Removes the run with its piece; NotReadyError, naming it, while it is at work."""
        async with self._alone(name):
            elsewhere = await asyncio.to_thread(self._live.at_work, name)
            if elsewhere or name in self._active:
                raise NotReadyError(f"run {name} is at work: cancel it first", culprit=name)
            await asyncio.to_thread(self._records.delete, name)
            self._unrecorded.pop(name, None)

    def resume(self) -> None:
        """From now on takes up, unasked, what is interrupted."""
        self._resumption.search()

    def drain(self) -> None:
        """Sends those away who watch, and takes nothing up any more; the runs go on."""
        self._draining.set()
        self._resumption.stop()
        for active in self._active.values():
            active.tell()

    async def close(self) -> None:
        """Interrupts all runs; they resume from what they finished."""
        self.drain()
        self._closing = True
        active = list(self._active.values())
        for each in active:
            each.work.cancel()
        if active:
            _, hanging = await asyncio.wait([each.end for each in active], timeout=CLOSING_SECONDS)
            for end in hanging:
                end.cancel()
            if hanging:
                await asyncio.wait(hanging, timeout=BEAT_SECONDS)

    def _alone(self, name: str) -> asyncio.Lock:
        return self._beginning.setdefault(name, asyncio.Lock())

    def _as_known_here(self, run: Run) -> Run:
        """What the store has of a run, or what is known better."""
        # It may have begun here meanwhile.
        if active := self._active.get(run.id):
            return active.run
        return self._unrecorded.get(run.id, run) if interrupted(run) else run

    def _refuse_while_draining(self, name: str) -> None:
        if self._draining.is_set():
            raise UnavailableError(
                f"this gateway is stopping: watch run {name} again once it is back"
            )

    async def _created(self, record: RunRecord) -> Run:
        name = record.id
        async with self._alone(name):
            if active := self._active.get(name):
                return active.run
            found = await asyncio.to_thread(self._stored.found, name)
            if found and found.state not in ENDED:
                # At work elsewhere, and here if that gateway stops.
                self._resumption.follow(name)
                return found
            succeeded = found is not None and found.state == State.STATE_SUCCEEDED
            if found and succeeded and await self._pipeline.stands(found):
                return found
            return await self._begin(record)

    async def _begin(self, record: RunRecord) -> Run:
        """Sets to work; live first, so that nobody takes it for interrupted."""
        try:
            with suppress(UnavailableError):
                await asyncio.to_thread(self._live.claim, new_run(record))
            record = await asyncio.to_thread(self._records.begin, record)
        except BaseException:
            await self._release(record.id)
            raise
        self._unrecorded.pop(record.id, None)
        active = self._active[record.id] = ActiveRun(new_run(record))
        self._metrics.runs_active.inc()
        # A run outlives the call that created it: it must not inherit its deadline, nor its trace.
        created_by = current_call()
        with serving(Call(record.id, run_id=record.id)):
            cause = created_by.traceparent if created_by else ""
            active.work = asyncio.create_task(self._work(record, active, cause))
            active.beat = asyncio.create_task(self._beat(active))
            active.end = asyncio.create_task(self._end(active))
        return active.run

    async def _work(self, record: RunRecord, active: ActiveRun, cause: str) -> None:
        """The run's work, in a trace of its own that points to the call which created it."""
        attributes = {"demiurge.run_id": record.id}
        with self._tracing.span("run", attributes, linked_to=cause):
            await self._pipeline.execute(record, active.run, active.changed)

    async def _beat(self, active: ActiveRun) -> None:
        """Tells other gateways how the run stands, and hears if one was told to cancel it."""
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            run = Run()
            run.CopyFrom(active.run)
            try:
                await in_thread(partial(self._live.beat, run))
                if await in_thread(partial(self._records.asked_to_cancel, run.id)):
                    active.work.cancel()
            except DemiurgeError as error:
                logger.info("no beat", run_id=run.id, error=error.message)

    async def _end(self, active: ActiveRun) -> None:
        """Records how the run ends, and only then lets it be seen."""
        await asyncio.wait([active.work])
        active.beat.cancel()
        await asyncio.wait([active.beat])
        ended = Run()
        ended.CopyFrom(active.run)
        ended.update_time.CopyFrom(now())
        conclude(ended, active.work, cancelled=not self._closing)
        active.ended = ended
        try:
            # A run that the gateway leaves lying has not ended.
            if not (self._closing and active.work.cancelled()):
                ended = await self._patience.stored(partial(self._records.save_end, ended))
        except Exception as error:
            defect = None if isinstance(error, DemiurgeError) else error
            logger.warning("end not recorded", run_id=ended.id, error=str(error), exc_info=defect)
            if ended.state != State.STATE_CANCELLED:
                fail(ended, unrecorded(error))
            self._unrecorded[ended.id] = ended
        finally:
            await self._release(ended.id)
            active.run = active.ended = ended
            del self._active[ended.id]
            self._metrics.runs_active.dec()
            self._metrics.runs_ended.labels(outcome_of(ended)).inc()
            active.tell()

    async def _ask_to_cancel(self, name: str) -> None:
        with suppress(DemiurgeError):
            await in_thread(partial(self._records.ask_to_cancel, name))

    async def _release(self, name: str) -> None:
        with suppress(DemiurgeError):
            await in_thread(partial(self._live.release, name))

    def _has_room(self) -> bool:
        """Whether a run may be taken up: not before the addresses of all services are known."""
        return self._peers.known() and len(self._active) < TAKEN_UP_AT_ONCE

    async def _take_up(self, name: str) -> Found:
        """Resumes a run if it is interrupted, and answers whether it was."""
        async with self._alone(name):
            if name in self._active:
                return Found.AT_WORK
            found = await asyncio.to_thread(self._stored.found, name)
            if found is None or (found.state in ENDED and not interrupted(found)):
                return Found.ENDED
            if not interrupted(found):
                return Found.AT_WORK
            # A cancel that the store could not take holds all the same.
            if self._as_known_here(found).state == State.STATE_CANCELLED:
                return Found.ENDED
            logger.info("run taken up", run_id=name)
            await self._begin(await asyncio.to_thread(self._records.request, name))
            return Found.INTERRUPTED
