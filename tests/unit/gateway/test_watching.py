from pathlib import Path

from demiurge.gateway.v1.gateway_service_pb2 import Run, State
from prometheus_client import CollectorRegistry

from services.gateway.active_run import ActiveRun
from services.gateway.audio_library import AudioLibrary
from services.gateway.live import LiveRuns
from services.gateway.metrics import GatewayMetrics
from services.gateway.patience import Patience
from services.gateway.peers import Peers
from services.gateway.pipeline import Pipeline
from services.gateway.run_store import RunStore
from services.gateway.runs import Runs
from services.runtime.object_store.folder import FolderStore
from services.runtime.settings import RuntimeSettings


async def test_a_run_that_ends_while_it_is_being_shown_is_shown_once_more(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    records, patience = RunStore(store), Patience(0)
    peers = Peers(lambda _: "", RuntimeSettings(), 1, patience)
    metrics = GatewayMetrics(CollectorRegistry())
    pipeline = Pipeline(store, records, peers, patience, concurrency=1, metrics=metrics)
    live = LiveRuns(records, lease_seconds=1)
    library = AudioLibrary(store, max_upload_bytes=1)
    runs = Runs(
        records,
        live,
        library=library,
        peers=peers,
        pipeline=pipeline,
        patience=patience,
        metrics=metrics,
    )
    active = ActiveRun(Run(id="run-1", state=State.STATE_RUNNING))
    runs._active["run-1"] = active

    watching = runs.watch("run-1")
    seen = [(await anext(watching)).state]
    active.run = Run(id="run-1", state=State.STATE_SUCCEEDED)
    active.tell()
    seen += [run.state async for run in watching]

    assert seen == [State.STATE_RUNNING, State.STATE_SUCCEEDED]
