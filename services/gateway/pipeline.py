"""The pipeline: six stages, each a function of what came before, each leaving a marker."""

import asyncio
from collections.abc import Callable

from demiurge.audio.v1.audio_pb2 import MatchTable
from demiurge.gateway.v1.gateway_service_pb2 import Run, RunResult, State
from demiurge.gateway.v1.gateway_service_pb2 import Stage as StageMessage
from demiurge.gateway.v1.run_record_pb2 import (
    Descriptions,
    IndexedMaterial,
    Material,
    PredictedTracks,
    RunRecord,
)
from google.protobuf.timestamp_pb2 import Timestamp

from services.gateway.context import RunContext, Stage
from services.gateway.peers import Peers
from services.gateway.run_store import RunStore
from services.gateway.stages import extract, generate, index, match, predict, render
from services.gateway.standing import objects_stand
from services.runtime.object_store.port import ObjectStore

STAGES = (
    Stage("generate", Material, generate.run, generate.items),
    Stage("extract", Descriptions, extract.run, extract.items),
    Stage("index", IndexedMaterial, index.run, index.items, index.stands),
    Stage("predict", PredictedTracks, predict.run, predict.items),
    Stage("match", MatchTable, match.run, match.items),
    Stage("render", RunResult, render.run, render.items),
)


def now() -> Timestamp:
    """The time as a message."""
    timestamp = Timestamp()
    timestamp.GetCurrentTime()
    return timestamp


def new_run(record: RunRecord) -> Run:
    """A run about to begin."""
    return Run(
        id=record.id,
        state=State.STATE_PENDING,
        spec=record.spec,
        stages=[StageMessage(name=stage.name, state=State.STATE_PENDING) for stage in STAGES],
        create_time=record.create_time,
        update_time=now(),
    )


class Pipeline:
    """Works through the stages of a run, but for those that left markers which still hold."""

    def __init__(
        self, store: ObjectStore, runs: RunStore, peers: Peers, *, concurrency: int
    ) -> None:
        self._store = store
        self._runs = runs
        self._peers = peers
        self._concurrency = concurrency

    async def execute(self, record: RunRecord, run: Run, changed: Callable[[], None]) -> None:
        """Takes `run` to its result, keeping its stages up to date; `changed()` at each change."""
        context = RunContext(
            run_id=record.id,
            spec=record.spec,
            snapshot=record.snapshot,
            peers=self._peers,
            store=self._store,
            concurrency=self._concurrency,
        )
        run.state = State.STATE_RUNNING
        for number in range(len(STAGES)):
            await self._execute_stage(number, context, run, changed)
        run.result.CopyFrom(context.output(RunResult))

    async def stands(self, ended: Run) -> bool:
        """Whether the piece of a run that succeeded is still there."""
        return await objects_stand(self._store, ended.result)

    async def _execute_stage(
        self, number: int, context: RunContext, run: Run, changed: Callable[[], None]
    ) -> None:
        stage, progress = STAGES[number], run.stages[number]

        def advance(completed: int, total: int) -> None:
            progress.completed_items, progress.total_items = completed, total
            changed()

        progress.state = State.STATE_RUNNING
        progress.start_time.CopyFrom(now())
        changed()
        output = await asyncio.to_thread(self._runs.marker, run.id, number, stage.output())
        if output is None or not await stage.stands(context, output):
            output = await stage.run(context, advance)
            await asyncio.to_thread(self._runs.save_marker, run.id, number, output)
        context.outputs[stage.output] = output
        if isinstance(output, Descriptions | PredictedTracks):
            run.skipped.extend(output.skipped)
        progress.completed_items = progress.total_items = stage.items(context)
        progress.state = State.STATE_SUCCEEDED
        progress.end_time.CopyFrom(now())
        changed()
