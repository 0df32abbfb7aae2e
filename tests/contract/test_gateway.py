"""Runs through the gateway, with every service real."""

import time
from concurrent import futures
from pathlib import Path

import grpc
import pytest
from demiurge.gateway.v1 import gateway_service_pb2 as pb
from demiurge.gateway.v1.gateway_service_pb2 import State
from demiurge.gateway.v1.run_record_pb2 import PredictedTracks
from demiurge.query.v1.query_service_pb2 import DeleteCollectionRequest

from services.audio.track_json import read_tracks
from services.errors import InvalidInputError, NotFoundError
from services.gateway.run_store import RunStore
from services.gateway.standing import references
from services.runtime.status import remote_errors
from tests.conftest import OpenStack, Stack, sound, spec
from tests.contract.conftest import HOP, Repeater, served

STAGES = ["generate", "extract", "index", "predict", "match", "render"]


def states(run: pb.Run) -> list[str]:
    return [State.Name(stage.state).removeprefix("STATE_") for stage in run.stages]


def counts(run: pb.Run) -> dict[str, tuple[int, int]]:
    return {stage.name: (stage.completed_items, stage.total_items) for stage in run.stages}


def test_a_run_goes_from_generation_to_a_piece_of_exactly_its_frames(shared: Stack) -> None:
    created = shared.create(spec(frames=31, files=4))
    seen = list(shared.watch(created.id))

    run = seen[-1]
    assert run.state == State.STATE_SUCCEEDED
    assert [stage.name for stage in run.stages] == STAGES
    assert states(run) == ["SUCCEEDED"] * 6
    assert run.result.sample_count == 31 * HOP
    assert len(shared.store.read(run.result.audio.key)) == run.result.audio.size_bytes
    assert shared.store.exists(run.result.edit_list.key)
    assert shared.store.exists(run.result.spectrogram.key)
    assert run.result.database.startswith("generated-")
    assert counts(run) == dict(
        zip(STAGES, [(4, 4), (6, 6), (4, 4), (2, 2), (2, 2), (1, 1)], strict=True)
    )
    # It was watched as it went: no state is seen after the end, and none but the last is one.
    assert {message.state for message in seen[:-1]} <= {State.STATE_PENDING, State.STATE_RUNNING}
    assert shared.get(run.id) == run


def test_a_run_takes_its_moments_from_a_database_that_is_there(shared: Stack) -> None:
    run = shared.made(spec(database="material"))

    assert run.state == State.STATE_SUCCEEDED
    assert run.result.database == "material"
    sources = shared.store.read(run.result.edit_list.key).decode()
    assert "audio/material/" in sources
    assert "audio/generated" not in sources


def test_the_same_request_again_attaches_and_answers_at_once_with_the_same_piece(
    shared: Stack,
) -> None:
    first = shared.made(spec(seed=5))
    before = shared.files()

    again = shared.create(spec(seed=5))

    assert again == first
    assert shared.files() == before


def test_a_request_that_is_made_twice_at_once_is_one_run(shared: Stack) -> None:
    with futures.ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(shared.create, [spec(seed=6)] * 4))

    assert len({run.id for run in runs}) == 1
    assert len({run.create_time.ToNanoseconds() for run in runs}) == 1
    assert shared.ended(runs[0]).state == State.STATE_SUCCEEDED


def test_another_seed_is_another_run_and_another_piece(shared: Stack) -> None:
    first, other = shared.made(spec(seed=7)), shared.made(spec(seed=8))

    assert first.id != other.id
    assert first.result.audio.sha256 != other.result.audio.sha256


def test_a_cancelled_run_resumes_with_what_it_had_and_ends_as_if_undisturbed(
    shared: Stack, open_stack: OpenStack, tmp_path: Path
) -> None:
    wanted = spec(files=20, frames=12)
    undisturbed = shared.piece(wanted)
    with open_stack(tmp_path) as stack:
        for seed in (1, 2):
            stack.upload("prediction", f"{seed}.wav", sound(1.0, seed))
        run = stack.create(wanted)
        for message in stack.watch(run.id):
            if message.stages[0].completed_items >= 3:
                break
        cancelled = stack.cancel(run.id)
        assert cancelled.state == State.STATE_CANCELLED
        assert states(cancelled)[:2] == ["CANCELLED", "PENDING"]
        assert cancelled.stages[0].completed_items < 20
        assert stack.get(run.id) == cancelled
        there = {key: when for key, when in stack.files().items() if "audio/generated" in key}
        assert len(there) >= 3

        resumed = stack.create(wanted)

        assert resumed.id == run.id
        assert resumed.create_time == run.create_time
        assert stack.piece(wanted) == undisturbed
        after = stack.files()
        assert {key: after[key] for key in there} == there
        assert counts(stack.get(run.id))["generate"] == (20, 20)


def test_stages_that_had_ended_are_not_done_again(repeated: tuple[Stack, Repeater]) -> None:
    stack, repeater = repeated
    repeater.may_answer.clear()
    wanted = spec(predictor="repeater", files=2)
    run = stack.create(wanted)
    assert repeater.asked.wait(30)
    assert states(stack.get(run.id)) == ["SUCCEEDED"] * 3 + ["RUNNING"] + ["PENDING"] * 2
    assert states(stack.cancel(run.id))[3] == "CANCELLED"
    markers = {key: when for key, when in stack.files().items() if f"{run.id}/stages/" in key}
    assert len(markers) == 3

    repeater.may_answer.set()
    ended = stack.made(wanted)

    assert ended.state == State.STATE_SUCCEEDED
    assert counts(ended)["generate"] == (2, 2)
    assert counts(ended)["extract"] == (3, 3)
    assert counts(ended)["index"] == (2, 2)
    after = stack.files()
    assert {key: after[key] for key in markers} == markers


def test_a_run_outlives_the_deadline_of_the_call_that_created_it(
    repeated: tuple[Stack, Repeater],
) -> None:
    stack, repeater = repeated
    repeater.may_answer.clear()
    deadline = 2.0
    run = stack.create(spec(predictor="repeater", database="material", seed=1), timeout=deadline)
    assert repeater.asked.wait(30)
    time.sleep(deadline)
    assert stack.get(run.id).state == State.STATE_RUNNING

    repeater.may_answer.set()

    assert stack.ended(run).state == State.STATE_SUCCEEDED


def test_whoever_watches_a_run_sees_it_cancelled_and_the_stream_ends(
    repeated: tuple[Stack, Repeater],
) -> None:
    stack, repeater = repeated
    repeater.may_answer.clear()
    run = stack.create(spec(predictor="repeater", database="material", seed=2))
    with futures.ThreadPoolExecutor(2) as pool:
        watching = [pool.submit(stack.ended, run) for _ in range(2)]
        assert repeater.asked.wait(30)
        stack.cancel(run.id)
        ends = [watched.result(timeout=30) for watched in watching]

    assert [end.state for end in ends] == [State.STATE_CANCELLED] * 2


def test_a_run_that_is_cancelled_while_its_end_is_recorded_has_succeeded(shared: Stack) -> None:
    for seed in (20, 21):
        run = shared.create(spec(database="material", seed=seed))
        for message in shared.watch(run.id):
            if message.stages[-1].state == State.STATE_SUCCEEDED:
                break
        cancelled = shared.cancel(run.id)

        assert cancelled.state == State.STATE_SUCCEEDED
        assert shared.get(run.id) == cancelled
        assert shared.ended(run) == cancelled


def test_cancelling_a_run_that_has_ended_changes_nothing(shared: Stack) -> None:
    run = shared.made(spec(seed=5))

    assert shared.cancel(run.id) == run


def test_a_gateway_that_stops_leaves_its_runs_interrupted_and_the_next_one_resumes_them(
    open_stack: OpenStack, tmp_path: Path
) -> None:
    repeater = Repeater()
    repeater.may_answer.clear()
    wanted = spec(predictor="repeater", database="material")
    with served(repeater) as address:
        settings = {"predictor_address": address}
        with open_stack(tmp_path, **settings) as stack:
            stack.upload("prediction", "1.wav", sound(1.0, 1))
            stack.upload("material", "2.wav", sound(1.0, 2))
            run = stack.create(wanted)
            assert repeater.asked.wait(30)
        with open_stack(tmp_path, **settings) as stack:
            left = stack.get(run.id)
            assert (left.state, left.failure.reason) == (State.STATE_FAILED, "INTERRUPTED")
            repeater.may_answer.set()
            assert stack.made(wanted).state == State.STATE_SUCCEEDED


def test_a_run_whose_process_died_shows_as_interrupted_and_resumes_to_the_same_bytes(
    shared: Stack,
) -> None:
    wanted = spec(seed=9)
    piece = shared.piece(wanted)
    run = shared.create(wanted)
    # As a process leaves it that is killed while matching.
    for key in ("run.json", "stages/4.json", "stages/5.json"):
        shared.store.delete(f"runs/{run.id}/{key}")
    for made in (run.result.audio, run.result.edit_list, run.result.spectrogram):
        shared.store.delete(made.key)

    left = shared.get(run.id)
    assert (left.state, left.failure.reason) == (State.STATE_FAILED, "INTERRUPTED")
    assert left.failure.code == grpc.StatusCode.UNAVAILABLE.value[0]
    assert left.create_time == run.create_time

    assert shared.piece(wanted) == piece


def test_a_run_whose_piece_was_deleted_makes_the_same_one_again(shared: Stack) -> None:
    wanted = spec(seed=12)
    piece = shared.piece(wanted)
    run = shared.create(wanted)
    shared.store.delete(run.result.audio.key)

    assert shared.piece(wanted) == piece
    assert shared.create(wanted).create_time == run.create_time


def test_a_run_of_which_nothing_but_markers_is_left_makes_the_same_piece_again(
    shared: Stack,
) -> None:
    wanted = spec(seed=13)
    piece = shared.piece(wanted)
    run = shared.create(wanted)
    kept = ("runs/", "models/", "audio/prediction/", "audio/material/")
    for key in list(shared.store.keys("")):
        if not key.startswith(kept) or f"{run.id}/predictions/" in key:
            shared.store.delete(key)
    shared.call(
        shared.client.query.DeleteCollection,
        DeleteCollectionRequest(collection_id=run.result.collection_id),
    )

    again = shared.made(wanted)

    assert again.result == run.result
    assert shared.store.read(again.result.audio.key) == piece
    for made in references(RunStore(shared.store).marker(run.id, 3, PredictedTracks())):
        assert shared.store.exists(made.key)


def test_what_a_run_predicted_says_so_and_cannot_be_learned_from(shared: Stack) -> None:
    run = shared.made(spec(seed=14))
    for made in references(RunStore(shared.store).marker(run.id, 3, PredictedTracks())):
        content = shared.store.read(made.key)
        assert read_tracks(content, source=made.key)
        with pytest.raises(InvalidInputError, match="_predictor says that this is a prediction"):
            read_tracks(content, source=made.key, of_sounds_alone=True)


def test_a_run_that_cannot_be_recorded_fails_instead_of_hanging(
    repeated: tuple[Stack, Repeater],
) -> None:
    stack, repeater = repeated
    repeater.may_answer.clear()
    run = stack.create(spec(predictor="repeater", database="material", seed=3))
    assert repeater.asked.wait(30)
    # Where run.json belongs, the store has a folder.
    stack.store.put(f"runs/{run.id}/run.json/in-the-way", b"")
    repeater.may_answer.set()

    end = stack.ended(run)

    assert end.state == State.STATE_FAILED
    assert end.failure.reason == "CONFLICT"
    assert f"runs/{run.id}/run.json" in end.failure.message
    assert not end.HasField("result")


def test_runs_are_listed_newest_first_and_in_pages(open_stack: OpenStack, tmp_path: Path) -> None:
    with open_stack(tmp_path) as stack:
        stack.upload("prediction", "1.wav", sound(1.0, 1))
        stack.upload("material", "2.wav", sound(0.5, 2))
        made = [stack.made(spec(database="material", seed=seed)).id for seed in range(3)]
        stack.store.put("runs/run-damaged/request.json", b"\xff{")

        listed: list[str] = []
        sizes, token = [], ""
        while token or not listed:
            request = pb.ListRunsRequest(page_size=2, page_token=token)
            page = stack.call(stack.client.pipeline.ListRuns, request)
            listed += [run.id for run in page.runs]
            sizes.append(len(page.runs))
            token = page.next_page_token

        assert listed == made[::-1]
        assert sizes == [2, 1]
        nowhere = pb.ListRunsRequest(page_token="run-nowhere")  # noqa: S106 - no password
        with pytest.raises(InvalidInputError, match="run-nowhere"):
            stack.call(stack.client.pipeline.ListRuns, nowhere)


@pytest.mark.parametrize("method", ["get", "cancel", "ended"])
def test_an_unknown_run_is_not_found_by_its_name(shared: Stack, method: str) -> None:
    with pytest.raises(NotFoundError, match="run-nowhere"), remote_errors():
        getattr(shared, method)(pb.Run(id="run-nowhere") if method == "ended" else "run-nowhere")


def test_a_database_that_grows_does_not_change_a_run(repeated: tuple[Stack, Repeater]) -> None:
    stack, repeater = repeated
    stack.upload("growing", "1.wav", sound(0.5, 3))
    wanted = spec(predictor="repeater", database="growing")
    repeater.may_answer.clear()
    run = stack.create(wanted)
    stack.upload("growing", "2.wav", sound(0.5, 4))
    repeater.may_answer.set()

    ended = stack.ended(run)

    assert ended.state == State.STATE_SUCCEEDED
    assert counts(ended)["extract"] == (2, 2)
    snapshot = RunStore(stack.store).request(run.id).snapshot
    assert [file.key for file in snapshot.material] == ["audio/growing/1.wav"]
    assert stack.create(wanted).id != run.id


def test_only_the_named_files_are_continued_in_their_order(shared: Stack) -> None:
    wanted = spec(database="material")
    wanted.prediction.files.extend(["2.wav", "1.wav"])
    run = shared.made(wanted)

    record = RunStore(shared.store).request(run.id)
    names = [file.key for file in record.snapshot.prediction]
    assert names == ["audio/prediction/2.wav", "audio/prediction/1.wav"]

    wanted.prediction.files.append("3.wav")
    with pytest.raises(NotFoundError, match=r"'prediction' has no file '3\.wav'"):
        shared.create(wanted)


def test_a_sound_that_is_both_material_and_continued_is_described_once(shared: Stack) -> None:
    shared.upload("both", "bad.wav", b"not sound")
    shared.upload("both", "good.wav", sound(0.5, 6))

    run = shared.made(spec(database="both", prediction="both"))

    assert run.state == State.STATE_SUCCEEDED
    assert counts(run)["extract"] == (2, 2)
    assert [item.key for item in run.skipped] == ["audio/both/bad.wav"]
