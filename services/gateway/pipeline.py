"""The pipeline: six stages, each a function of what came before, each leaving a marker."""

from collections.abc import Callable
from functools import partial

import structlog
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
from google.protobuf.message import Message

from services.errors import CorruptObjectError, NotFoundError
from services.gateway.context import RunContext, Stage, piece_stands
from services.gateway.metrics import GatewayMetrics
from services.gateway.patience import Patience, in_thread
from services.gateway.peers import Peers
from services.gateway.run_store import RunStore, now
from services.gateway.stages import extract, generate, index, match, predict, render
from services.gateway.standing import objects_stand, references
from services.gateway.timing import timed
from services.runtime.object_store.port import ObjectStore
from services.runtime.tracing import Tracing

DESCRIPTORS = "descriptors/"

logger = structlog.get_logger(__name__)

STAGES = (
    Stage("generate", Material, generate.run, generate.items),
    Stage("extract", Descriptions, extract.run, extract.items),
    Stage("index", IndexedMaterial, index.run, index.items, index.stands),
    Stage("predict", PredictedTracks, predict.run, predict.items),
    Stage("match", MatchTable, match.run, match.items),
    Stage("render", RunResult, render.run, render.items, piece_stands),
)


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
        self,
        store: ObjectStore,
        runs: RunStore,
        peers: Peers,
        patience: Patience,
        *,
        concurrency: int,
        metrics: GatewayMetrics,
        tracing: Tracing | None = None,
    ) -> None:
        self._store = store
        self._runs = runs
        self._peers = peers
        self._patience = patience
        self._concurrency = concurrency
        self._metrics = metrics
        self._tracing = tracing or Tracing()

    async def execute(self, record: RunRecord, run: Run, changed: Callable[[], None]) -> None:
        """Takes `run` to its result, keeping its stages up to date; `changed()` at each change.

        Damaged objects that the run itself made are removed and made again, each once.
        """
        beginning = Run()
        beginning.CopyFrom(run)
        seen: set[str] = set()
        removed: set[str] = set()
        while True:
            context = RunContext(
                run_id=record.id,
                spec=record.spec,
                snapshot=record.snapshot,
                peers=self._peers,
                store=self._store,
                patience=self._patience,
                concurrency=self._concurrency,
            )
            run.CopyFrom(beginning)
            run.state = State.STATE_RUNNING
            try:
                for number in range(len(STAGES)):
                    await self._execute_stage(number, context, run, changed)
            except CorruptObjectError as error:
                key = error.culprit
                if key in removed or not made_by_run(context, key):
                    raise
                # Another run may have mended it meanwhile: then it is only looked at again.
                damaged = partial(_is_damaged, self._store, key)
                if key in seen or await self._patience.stored(damaged):
                    logger.warning("damaged, and made again", key=key, error=error.message)
                    await self._patience.stored(partial(self._store.delete, key))
                    removed.add(key)
                seen.add(key)
                continue
            run.result.CopyFrom(context.output(RunResult))
            return

    async def stands(self, ended: Run) -> bool:
        """Whether the piece of a run that succeeded is still there, undamaged."""
        left = list(references(ended.result))
        return await in_thread(partial(objects_stand, self._store, left, read=True))

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
        with timed(stage.name, run.id, self._metrics, self._tracing) as timing:
            output = await self._marker(number, context)
            if output is not None and await stage.stands(context, output):
                timing.outcome = "kept"
            else:
                output = await stage.run(context, advance)
                save = partial(self._runs.save_marker, run.id, number, output)
                await context.patience.stored(save)
        context.outputs[stage.output] = output
        if isinstance(output, Descriptions | PredictedTracks):
            run.skipped.extend(output.skipped)
        progress.completed_items = progress.total_items = stage.items(context)
        progress.state = State.STATE_SUCCEEDED
        progress.end_time.CopyFrom(now())
        changed()

    async def _marker(self, number: int, context: RunContext) -> Message | None:
        """What the stage left, None if it is to be done: a marker can always be made again."""
        output = STAGES[number].output()
        try:
            return await context.patience.stored(
                partial(self._runs.marker, context.run_id, number, output)
            )
        except CorruptObjectError as error:
            logger.warning("stage done again", stage=STAGES[number].name, error=error.message)
            return None


def _is_damaged(store: ObjectStore, key: str) -> bool:
    try:
        store.verify(key)
    except CorruptObjectError:
        return True
    except NotFoundError:
        pass
    return False


def made_by_run(context: RunContext, key: str) -> bool:
    """Whether an object can be made again: descriptions, and what stages made, but nothing given.

    Descriptions may be older than the run.
    """
    if any(each.key == key for each in references(context.snapshot)):
        return False
    outputs = context.outputs.values()
    return key.startswith(DESCRIPTORS) or any(
        each.key == key for output in outputs for each in references(output)
    )
