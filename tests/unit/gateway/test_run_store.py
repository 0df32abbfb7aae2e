from pathlib import Path

import numpy as np
import pytest
from demiurge.audio.v1.audio_pb2 import FeatureStatistics, MatchTable, ObjectRef
from demiurge.gateway.v1.gateway_service_pb2 import Run, RunSpec, State
from demiurge.gateway.v1.run_record_pb2 import Descriptions, RunRecord
from google.protobuf.timestamp_pb2 import Timestamp

from services.errors import CorruptObjectError, NotFoundError
from services.gateway.run_store import RunStore
from services.runtime.object_store.folder import FolderStore


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path)


@pytest.fixture
def runs(store: FolderStore) -> RunStore:
    return RunStore(store)


def record(seconds: int = 1) -> RunRecord:
    return RunRecord(
        id="run-1", spec=RunSpec(seed=2**64 - 1), create_time=Timestamp(seconds=seconds)
    )


def test_what_was_asked_comes_back_as_it_was(runs: RunStore) -> None:
    assert runs.begin(record()) == record()
    assert runs.request("run-1") == record()
    assert list(runs.ids()) == ["run-1"]


def test_a_run_that_begins_again_keeps_its_first_record_and_has_no_end_any_more(
    runs: RunStore,
) -> None:
    runs.begin(record(seconds=1))
    runs.save_end(Run(id="run-1", state=State.STATE_CANCELLED))
    assert runs.end("run-1") == Run(id="run-1", state=State.STATE_CANCELLED)

    assert runs.begin(record(seconds=2)) == record(seconds=1)

    assert runs.end("run-1") is None


def test_a_damaged_record_is_written_again(runs: RunStore, store: FolderStore) -> None:
    store.put("runs/run-1/request.json", b"\xff")

    assert runs.begin(record()) == record()
    assert runs.request("run-1") == record()


def test_markers_keep_every_bit_of_numbers(runs: RunStore) -> None:
    random = np.random.default_rng(1)
    table = MatchTable(
        distances=np.float32(random.lognormal(0, 20, 500)).tolist(),
        start_samples=[0, 2**63, 2**64 - 1],
        sources=[ObjectRef(key="audio/ünï/鳥.wav")],
    )
    moments = FeatureStatistics(means=random.lognormal(0, 200, 500).tolist())
    described = Descriptions(statistics=moments)

    runs.save_marker("run-1", 4, table)
    runs.save_marker("run-1", 1, described)

    assert runs.marker("run-1", 4, MatchTable()) == table
    assert runs.marker("run-1", 1, Descriptions()) == described
    assert runs.marker("run-1", 2, MatchTable()) is None
    assert list(runs.ids()) == []


@pytest.mark.parametrize("content", [b"\xff", b"{", b'{"unknown": 1}'])
def test_a_damaged_marker_is_named(runs: RunStore, store: FolderStore, content: bytes) -> None:
    store.put("runs/run-1/stages/0.json", content)

    with pytest.raises(CorruptObjectError, match=r"runs/run-1/stages/0\.json"):
        runs.marker("run-1", 0, MatchTable())


def test_an_unknown_run_is_named(runs: RunStore) -> None:
    with pytest.raises(NotFoundError, match="run-9"):
        runs.request("run-9")
