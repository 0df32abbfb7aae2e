import subprocess
import time
from pathlib import Path

import pytest
from demiurge.gateway.v1.gateway_service_pb2 import Run, State
from demiurge.gateway.v1.run_record_pb2 import LiveRun
from google.protobuf.timestamp_pb2 import Timestamp

from services.gateway import live as live_module
from services.gateway.live import LiveRuns
from services.gateway.run_store import RunStore, now
from services.runtime.object_store.folder import FolderStore

RUN = Run(id="run-1", state=State.STATE_RUNNING)
LEASE_SECONDS = 3


@pytest.fixture
def records(tmp_path: Path) -> RunStore:
    return RunStore(FolderStore(tmp_path))


@pytest.fixture
def live(records: RunStore) -> LiveRuns:
    return LiveRuns(records, lease_seconds=LEASE_SECONDS)


def beaten(records: RunStore, seconds_ago: float, gateway: str = "elsewhere:1:a") -> None:
    beat = Timestamp()
    beat.FromNanoseconds(now().ToNanoseconds() - round(seconds_ago * 1e9))
    records.save_live(LiveRun(run=RUN, gateway_id=gateway, beat_time=beat))


def test_a_run_is_at_work_from_the_first_beat_to_its_release(
    records: RunStore, live: LiveRuns
) -> None:
    other = LiveRuns(records, lease_seconds=LEASE_SECONDS)
    assert live.at_work("run-1") is None

    live.claim(RUN)
    assert live.at_work("run-1") == other.at_work("run-1") == RUN

    live.release("run-1")
    assert live.at_work("run-1") is other.at_work("run-1") is None


def test_one_gateway_does_not_take_away_the_beat_of_another(
    records: RunStore, live: LiveRuns
) -> None:
    other = LiveRuns(records, lease_seconds=LEASE_SECONDS)
    live.claim(RUN)
    other.claim(RUN)

    live.release("run-1")

    assert live.at_work("run-1") == RUN


def test_a_beat_that_could_not_be_removed_is_not_believed_by_who_left_it(
    records: RunStore, live: LiveRuns
) -> None:
    live.claim(RUN)
    left = records.live("run-1")
    live.release("run-1")
    records.save_live(left)

    assert live.at_work("run-1") is None


def test_an_old_beat_is_no_life(records: RunStore, live: LiveRuns) -> None:
    beaten(records, seconds_ago=LEASE_SECONDS + 1)
    assert live.at_work("run-1") is None
    assert live.at_work("run-1") is None

    beaten(records, seconds_ago=1)
    assert live.at_work("run-1") == RUN


def test_a_beat_goes_out_however_far_ahead_the_clock_of_its_gateway_is(records: RunStore) -> None:
    live = LiveRuns(records, lease_seconds=1)
    beaten(records, seconds_ago=-3600)
    assert live.at_work("run-1") == RUN

    deadline = time.monotonic() + 30
    while live.at_work("run-1"):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_beat_that_changes_is_life_however_far_behind_its_clock_is(
    records: RunStore, live: LiveRuns
) -> None:
    beaten(records, seconds_ago=3600)
    assert live.at_work("run-1") is None

    beaten(records, seconds_ago=3599)
    assert live.at_work("run-1") == RUN


def test_a_gateway_of_this_machine_whose_process_is_gone_is_not_waited_for(
    records: RunStore, live: LiveRuns
) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    live.claim(RUN)
    host, process, _ = records.live("run-1").gateway_id.split(":")
    live.release("run-1")

    beaten(records, seconds_ago=0, gateway=f"{host}:{process}:other")
    assert live.at_work("run-1") == RUN
    beaten(records, seconds_ago=0, gateway=f"{host}:{gone.pid}:other")
    assert live.at_work("run-1") is None


def test_a_number_that_another_pid_namespace_or_host_gave_is_no_sign_of_death(
    records: RunStore, live: LiveRuns
) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    live.claim(RUN)
    place = records.live("run-1").gateway_id.partition(":")[0]
    host, start, namespace = place.split("/")
    live.release("run-1")

    for other in (
        host,
        f"{host}/{start}/{int(namespace) + 1}",
        f"{host}/another-start/{namespace}",
        f"another-host/{start}/{namespace}",
    ):
        beaten(records, seconds_ago=0, gateway=f"{other}:{gone.pid}:other")
        assert live.at_work("run-1") == RUN


def test_where_numbers_of_processes_may_be_shared_a_beat_is_waited_out(
    records: RunStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    monkeypatch.setattr(live_module, "PID_NAMESPACE", tmp_path / "none")
    live = LiveRuns(records, lease_seconds=LEASE_SECONDS)
    live.claim(RUN)
    place = records.live("run-1").gateway_id.partition(":")[0]
    live.release("run-1")

    beaten(records, seconds_ago=0, gateway=f"{place}:{gone.pid}:other")
    assert live.at_work("run-1") == RUN


def test_a_damaged_beat_is_none(records: RunStore, live: LiveRuns, tmp_path: Path) -> None:
    live.claim(RUN)
    (tmp_path / "runs" / "run-1" / "live.json").write_bytes(b"\xff")

    assert live.at_work("run-1") is None
