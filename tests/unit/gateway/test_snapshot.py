import pytest
from demiurge.gateway.v1.gateway_service_pb2 import Prediction, RunSpec
from demiurge.gateway.v1.run_record_pb2 import Snapshot
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.predictors import shares
from services.gateway.snapshot import ALGORITHM, digest, run_id
from services.gateway.stages.generate import item_seed


@given(st.integers(1, 10**6), st.integers(1, 1000))
def test_frames_are_shared_out_evenly_and_none_is_lost(frames: int, sounds: int) -> None:
    parts = shares(frames, sounds)

    assert sum(parts) == frames
    assert len(parts) == sounds
    assert parts == sorted(parts, reverse=True)
    assert parts[0] - parts[-1] <= 1


@pytest.mark.parametrize(
    ("spec", "snapshot"),
    [
        (RunSpec(seed=2), Snapshot()),
        (RunSpec(seed=1, database="a"), Snapshot()),
        (RunSpec(seed=1), Snapshot(material=[{"key": "audio/a/1.wav", "sha256": "0" * 64}])),
    ],
)
def test_another_request_or_another_input_is_another_run(spec: RunSpec, snapshot: Snapshot) -> None:
    assert run_id(spec, snapshot) != run_id(RunSpec(seed=1), Snapshot())
    assert run_id(RunSpec(seed=1), Snapshot()) == run_id(RunSpec(seed=1), Snapshot())


def test_runs_that_were_made_before_a_temperature_could_be_left_open_keep_their_ids() -> None:
    before = RunSpec(prediction=Prediction(database="owls"))
    told = RunSpec(prediction=Prediction(database="owls", temperature=0))
    warm = RunSpec(prediction=Prediction(database="owls", temperature=1))

    assert run_id(told, Snapshot()) == f"run-{digest(ALGORITHM, before, Snapshot())[:16]}"
    assert run_id(warm, Snapshot()) == f"run-{digest(ALGORITHM, warm, Snapshot())[:16]}"


def test_a_digest_tells_apart_what_stands_where() -> None:
    one, two = RunSpec(database="one"), RunSpec(database="two")

    assert len({digest(1, one, two), digest(1, two, one), digest(2, one, two), digest(1, one)}) == 4


def test_every_item_has_a_seed_of_its_own_that_stays() -> None:
    seeds = [item_seed(run, "generate", item) for run in range(20) for item in range(200)]

    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**64 for seed in seeds)
    # Pieces are made again by it: it must not change.
    assert item_seed(1, "generate", 11) != item_seed(11, "generate", 1)
    assert item_seed(0, "generate", 0) == 7440313490749412075
