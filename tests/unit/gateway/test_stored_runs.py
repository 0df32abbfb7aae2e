from pathlib import Path

import pytest
from demiurge.gateway.v1.gateway_service_pb2 import Run, State
from demiurge.gateway.v1.run_record_pb2 import RunRecord
from google.protobuf.timestamp_pb2 import Timestamp

from services.errors import InvalidInputError
from services.gateway.live import LiveRuns
from services.gateway.run_store import RunStore
from services.gateway.stored_runs import StoredRuns
from services.runtime.object_store.folder import FolderStore


@pytest.fixture
def records(tmp_path: Path) -> RunStore:
    return RunStore(FolderStore(tmp_path))


@pytest.fixture
def stored(records: RunStore) -> StoredRuns:
    return StoredRuns(records, LiveRuns(records, lease_seconds=10))


def made(records: RunStore, name: str, seconds: int, *, ended: bool = True) -> None:
    created = Timestamp(seconds=seconds)
    records.begin(RunRecord(id=name, create_time=created))
    if ended:
        records.save_end(Run(id=name, state=State.STATE_SUCCEEDED, create_time=created))


def listed(stored: StoredRuns, size: int) -> list[list[str]]:
    pages, token = [], ""
    while token or not pages:
        runs, token = stored.page(token, size)
        pages.append([run.id for run in runs])
    return pages


def test_runs_come_newest_first_and_those_of_one_moment_by_id(
    records: RunStore, stored: StoredRuns
) -> None:
    for name, seconds in (("run-a", 2), ("run-b", 3), ("run-c", 1), ("run-d", 2)):
        made(records, name, seconds, ended=name != "run-c")

    assert listed(stored, 3) == [["run-b", "run-d", "run-a"], ["run-c"]]
    assert listed(stored, 4) == [["run-b", "run-d", "run-a", "run-c"]]
    (*_, interrupted), _ = stored.page("", 9)
    assert interrupted.failure.reason == "INTERRUPTED"


def test_a_list_goes_on_where_it_was_though_runs_come_and_go(
    records: RunStore, stored: StoredRuns
) -> None:
    for number in range(6):
        made(records, f"run-{number}", number)
    first, token = stored.page("", 2)
    records.delete(first[-1].id)
    made(records, "run-new", 9)

    rest, _ = stored.page(token, 9)

    assert [run.id for run in rest] == ["run-3", "run-2", "run-1", "run-0"]


def test_a_run_that_is_deleted_and_made_again_has_its_new_place(
    records: RunStore, stored: StoredRuns
) -> None:
    made(records, "run-a", 1)
    made(records, "run-b", 2)
    assert listed(stored, 9) == [["run-b", "run-a"]]
    records.delete("run-a")
    assert listed(stored, 9) == [["run-b"]]
    made(records, "run-a", 3)

    assert listed(stored, 9) == [["run-a", "run-b"]]


@pytest.mark.parametrize("token", ["run-1", ":", "²:run-1", "-1:run-1"])
def test_what_is_no_page_token_is_refused(stored: StoredRuns, token: str) -> None:
    with pytest.raises(InvalidInputError, match="is no page token"):
        stored.page(token, 1)


def test_a_run_whose_end_is_damaged_is_found_to_be_made_again(
    records: RunStore, stored: StoredRuns, tmp_path: Path
) -> None:
    made(records, "run-a", 1)
    (tmp_path / "runs" / "run-a" / "run.json").write_bytes(b"\xff")

    assert stored.found("run-a") is None
    assert stored.page("", 9) == ([], "")
