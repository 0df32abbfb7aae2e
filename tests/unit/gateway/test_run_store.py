from pathlib import Path

import numpy as np
import pytest
from demiurge.audio.v1.audio_pb2 import FeatureStatistics, MatchTable, ObjectRef
from demiurge.gateway.v1.gateway_service_pb2 import Run, RunSpec, State
from demiurge.gateway.v1.run_record_pb2 import Descriptions, RunRecord
from google.protobuf.timestamp_pb2 import Timestamp
from typing_extensions import override

from services.errors import CorruptObjectError, NotFoundError, StorageFullError, UnavailableError
from services.gateway.run_store import RunStore
from services.runtime.object_store.folder import FolderStore
from services.runtime.object_store.port import StoredObject


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


class Tiring(FolderStore):
    """Away after so many deletions."""

    deletions = 0

    @override
    def delete(self, key: str) -> None:
        if not self.deletions:
            raise UnavailableError("away")
        self.deletions -= 1
        super().delete(key)


@pytest.mark.parametrize("ended", [True, False])
def test_a_deletion_that_breaks_off_leaves_what_nobody_takes_up_and_can_be_deleted(
    tmp_path: Path, ended: bool
) -> None:
    store = Tiring(tmp_path)
    runs = RunStore(store)
    for deletions in range(8):
        store.deletions = 100
        runs.begin(record())
        if ended:
            runs.save_end(Run(id="run-1", state=State.STATE_SUCCEEDED))
        runs.save_marker("run-1", 0, MatchTable())
        store.put("renders/run-1/piece.wav", b"piece")
        store.put("renders/run-10/piece.wav", b"of another run")
        store.deletions = deletions
        try:
            runs.delete("run-1")
        except UnavailableError:
            assert list(runs.unended()) == []
            assert runs.end("run-1") is None or deletions == 0
            store.deletions = 100
            runs.delete("run-1")
        else:
            assert deletions > 3

        assert [*store.keys("runs/"), *store.keys("renders/run-1/")] == []
        assert store.exists("renders/run-10/piece.wav")
        with pytest.raises(NotFoundError, match="run-1"):
            runs.delete("run-1")


def test_only_runs_that_nobody_saw_end_or_cancelled_are_unended(runs: RunStore) -> None:
    for name in ("run-1", "run-2", "run-3"):
        runs.begin(RunRecord(id=name))
    runs.save_end(Run(id="run-2"))
    runs.ask_to_cancel("run-3")

    assert list(runs.ids()) == ["run-1", "run-2", "run-3"]
    assert list(runs.unended()) == ["run-1"]


def test_a_success_is_not_taken_back_by_another_gateway_until_the_run_begins_again(
    runs: RunStore, store: FolderStore
) -> None:
    succeeded = Run(id="run-1", state=State.STATE_SUCCEEDED)
    failed = Run(id="run-1", state=State.STATE_FAILED)
    cancelled = Run(id="run-1", state=State.STATE_CANCELLED)

    assert runs.save_end(failed) == failed
    assert runs.save_end(succeeded) == succeeded
    for other in (failed, cancelled):
        assert runs.save_end(other) == succeeded
        assert runs.end("run-1") == succeeded

    runs.begin(record())
    assert runs.save_end(failed) == failed
    store.put("runs/run-1/run.json", b"\xff")
    assert runs.save_end(failed) == failed
    assert runs.end("run-1") == failed


class Full(FolderStore):
    """No room for anything new."""

    @override
    def put(self, key: str, content: bytes | Path) -> StoredObject:
        raise StorageFullError(f"{key}: full", culprit=key)


def test_runs_are_deleted_from_a_full_store(
    runs: RunStore, store: FolderStore, tmp_path: Path
) -> None:
    runs.begin(record())
    runs.save_end(Run(id="run-1", state=State.STATE_SUCCEEDED))
    store.put("renders/run-1/piece.wav", b"piece")

    RunStore(Full(tmp_path)).delete("run-1")

    assert list(store.keys("")) == []
