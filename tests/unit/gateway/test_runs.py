"""One gateway's runs over stores that are full or slow, without any service."""

import asyncio
import threading
from pathlib import Path

import pytest
from demiurge.audio.v1.audio_pb2 import ObjectRef
from demiurge.gateway.v1.gateway_service_pb2 import Run, RunResult, State
from demiurge.gateway.v1.run_record_pb2 import RunRecord
from prometheus_client import CollectorRegistry
from typing_extensions import override

from services.errors import StorageFullError
from services.gateway.audio_library import AudioLibrary
from services.gateway.live import LiveRuns
from services.gateway.metrics import GatewayMetrics
from services.gateway.patience import Patience
from services.gateway.peers import Peers
from services.gateway.pipeline import Pipeline
from services.gateway.resumption import Found
from services.gateway.run_store import RunStore
from services.gateway.runs import Runs
from services.runtime.object_store.folder import FolderStore
from services.runtime.object_store.port import StoredObject
from services.runtime.settings import RuntimeSettings


class Ailing(FolderStore):
    """Full, if told so; and whoever verifies or reads a piece waits until it may be read."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.full = False
        self.reading = threading.Event()
        self.readable = threading.Event()

    @override
    def put(self, key: str, content: bytes | Path) -> StoredObject:
        if self.full:
            raise StorageFullError(f"{key}: full", culprit=key)
        return super().put(key, content)

    @override
    def verify(self, key: str) -> StoredObject:
        self.reading.set()
        assert self.readable.wait(60)
        return super().verify(key)


@pytest.fixture
def store(tmp_path: Path) -> Ailing:
    return Ailing(tmp_path)


def opened(store: Ailing) -> Runs:
    records, patience = RunStore(store), Patience(0)
    peers = Peers(lambda _: "", RuntimeSettings(), 1, patience)
    metrics = GatewayMetrics(CollectorRegistry())
    pipeline = Pipeline(store, records, peers, patience, concurrency=1, metrics=metrics)
    live = LiveRuns(records, lease_seconds=1)
    library = AudioLibrary(store, max_upload_bytes=1)
    return Runs(
        records,
        live,
        library=library,
        peers=peers,
        pipeline=pipeline,
        patience=patience,
        metrics=metrics,
    )


async def test_a_run_that_is_cancelled_on_a_full_store_stays_so_and_is_not_taken_up(
    store: Ailing,
) -> None:
    runs = opened(store)
    await runs._created(RunRecord(id="run-1"))
    store.full = True

    assert (await runs.cancel("run-1")).state == State.STATE_CANCELLED
    *_, last = [run async for run in runs.watch("run-1")]
    assert last.state == State.STATE_CANCELLED
    store.full = False

    assert (await runs.get("run-1")).state == State.STATE_CANCELLED
    assert await runs._take_up("run-1") is Found.ENDED


async def test_a_run_that_succeeded_elsewhere_is_shown_so_where_it_failed(store: Ailing) -> None:
    runs = opened(store)
    await runs._created(RunRecord(id="run-1"))
    succeeded = Run(id="run-1", state=State.STATE_SUCCEEDED)
    RunStore(store).save_end(succeeded)

    await runs.cancel("run-1")

    assert await runs.get("run-1") == succeeded


async def test_no_run_waits_while_the_piece_of_another_is_read(store: Ailing) -> None:
    runs, records = opened(store), RunStore(store)
    store.put("renders/run-1/piece.wav", b"piece")
    piece = store.stat("renders/run-1/piece.wav")
    result = RunResult(audio=ObjectRef(key=piece.key, sha256=piece.sha256))
    for name in ("run-1", "run-2"):
        records.begin(RunRecord(id=name))
        records.save_end(Run(id=name, state=State.STATE_SUCCEEDED, result=result))
    slow = asyncio.create_task(runs._created(RunRecord(id="run-1")))
    assert await asyncio.to_thread(store.reading.wait, 60)

    await asyncio.wait_for(runs.delete("run-2"), 60)
    assert not slow.done()
    again = asyncio.create_task(runs.delete("run-1"))
    store.readable.set()

    assert (await slow).state == State.STATE_SUCCEEDED
    await again
    assert list(records.ids()) == []
