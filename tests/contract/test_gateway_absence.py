"""Services and a store that are away: for a while, for good, hanging, or full."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from demiurge.gateway.v1.gateway_service_pb2 import State

from services.errors import StorageFullError, UnavailableError
from tests.conftest import OpenStack, Stack, sound, spec
from tests.contract.gateways import Between, free_port, gateway, served_between

RESUMES = "create the run again, and it resumes"


@pytest.fixture(scope="module")
def material(open_stack: OpenStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack with something to make pieces of."""
    with open_stack(tmp_path_factory.mktemp("absence")) as stack:
        stack.upload("prediction", "1.wav", sound(1.0, 1))
        for seed in (2, 3):
            stack.upload("material", f"{seed}.wav", sound(0.7, seed))
        yield stack


@pytest.fixture
def between(material: Stack) -> Iterator[Between]:
    opened = Between(material.address)
    yield opened
    opened.close()


@contextmanager
def away(folder: Path) -> Iterator[None]:
    """The store's folder is not there, as when a mount is lost."""
    store, elsewhere = folder / "store", folder / "lost"
    store.rename(elsewhere)
    try:
        yield
    finally:
        elsewhere.rename(store)


@pytest.mark.parametrize("seconds", [2, pytest.param(30, marks=pytest.mark.slow)])
def test_a_service_that_is_killed_and_comes_back_is_waited_for(
    material: Stack, between: Between, seconds: int
) -> None:
    port = free_port()
    wanted = spec(database="material", seed=1000 + seconds)
    with gateway(material, f"127.0.0.1:{port}") as stack:
        with served_between(between, port):
            between.hold("MatchDescriptors")
            run = stack.create(wanted)
            assert between.answered.wait(60)
        time.sleep(seconds)
        assert stack.get(run.id).state == State.STATE_RUNNING
        between.release()
        with served_between(between, port):
            assert stack.ended(run).state == State.STATE_SUCCEEDED


def test_a_service_that_stays_away_ends_the_run_by_name_and_the_run_resumes_once_it_is_back(
    material: Stack, between: Between
) -> None:
    wanted = spec(database="material", seed=2)
    between.refused["MatchDescriptors"] = UnavailableError("the index is being moved")
    with (
        served_between(between) as port,
        gateway(material, f"127.0.0.1:{port}", patience_seconds=1) as stack,
    ):
        failed = stack.made(wanted)

        assert failed.state == State.STATE_FAILED
        assert failed.failure.reason == "UNAVAILABLE"
        told = failed.failure.message
        assert re.match(r"the query service was away for \d+ s", told)
        assert "the index is being moved" in told
        assert told.count(RESUMES) == 1
        assert between.asked.count("MatchDescriptors") > 1
        between.refused.clear()
        between.asked.clear()
        assert stack.made(wanted).state == State.STATE_SUCCEEDED
        assert "ExtractDescriptors" not in between.asked


def test_whoever_asks_for_a_run_while_a_service_is_away_is_told_at_once(material: Stack) -> None:
    begin = time.monotonic()
    with (
        gateway(material, f"127.0.0.1:{free_port()}", patience_seconds=600) as stack,
        pytest.raises(UnavailableError, match="Connection refused"),
    ):
        stack.create(spec(database="material", seed=3))
    assert time.monotonic() - begin < 60


@pytest.mark.parametrize("seconds", [2, pytest.param(30, marks=pytest.mark.slow)])
def test_a_store_that_is_away_for_a_while_is_waited_for_even_at_the_end(
    material: Stack, between: Between, seconds: int
) -> None:
    wanted = spec(database="material", seed=2000 + seconds)
    with (
        served_between(between) as port,
        gateway(material, f"127.0.0.1:{port}", patience_seconds=60) as stack,
    ):
        between.hold("RenderAudio")
        run = stack.create(wanted)
        assert between.answered.wait(60)
        with away(material.folder):
            between.release()
            time.sleep(seconds)
            assert stack.get(run.id).state == State.STATE_RUNNING
        ended = stack.ended(run)

    assert ended.state == State.STATE_SUCCEEDED
    assert material.get(run.id) == ended
    assert not material.store.exists(f"runs/{run.id}/live.json")


def test_a_run_whose_end_cannot_be_recorded_is_interrupted_and_resumes(
    material: Stack, between: Between
) -> None:
    wanted = spec(database="material", seed=5)
    with (
        served_between(between) as port,
        gateway(material, f"127.0.0.1:{port}", patience_seconds=1) as stack,
    ):
        between.hold("RenderAudio")
        run = stack.create(wanted)
        assert between.answered.wait(60)
        with away(material.folder):
            between.release()
            left = stack.ended(run)
        assert (left.state, left.failure.reason) == (State.STATE_FAILED, "INTERRUPTED")
        assert "the object store was away for" in left.failure.message
        assert left.failure.message.count(RESUMES) == 1
        assert stack.get(run.id).failure == left.failure
        assert stack.made(wanted).state == State.STATE_SUCCEEDED


def test_a_run_is_cancelled_at_once_though_the_store_is_away(
    material: Stack, between: Between
) -> None:
    with (
        served_between(between) as port,
        gateway(material, f"127.0.0.1:{port}", patience_seconds=600) as stack,
    ):
        between.hold("RenderAudio")
        run = stack.create(spec(database="material", seed=6))
        assert between.answered.wait(60)
        with away(material.folder):
            begin = time.monotonic()
            assert stack.cancel(run.id).state == State.STATE_CANCELLED
            assert time.monotonic() - begin < 2
        assert stack.ended(run).state == State.STATE_CANCELLED


def test_a_full_store_ends_the_run_at_once_and_says_what_to_do(
    material: Stack, between: Between
) -> None:
    between.refused["RenderAudio"] = StorageFullError("renders/x: /srv is full: make room there")
    with (
        served_between(between) as port,
        gateway(material, f"127.0.0.1:{port}", patience_seconds=600) as stack,
    ):
        failed = stack.made(spec(database="material", seed=7))

    assert failed.failure.reason == "STORAGE_FULL"
    assert failed.failure.message.startswith("renders/x: /srv is full: make room there; then ")
    assert failed.failure.message.count(RESUMES) == 1
    assert between.asked.count("RenderAudio") == 1


def test_a_service_that_hangs_is_named_and_the_run_resumes(
    material: Stack, between: Between
) -> None:
    wanted = spec(database="material", seed=8)
    with served_between(between) as port:
        between.hold("PredictDescriptors")
        with gateway(material, f"127.0.0.1:{port}", call_timeout_seconds=2) as hasty:
            failed = hasty.made(wanted)

        assert failed.failure.reason == "TIME_EXCEEDED"
        told = failed.failure.message
        assert "the predictor service did not answer PredictDescriptors within 2 s" in told
        assert "DEMIURGE_GATEWAY_CALL_TIMEOUT_SECONDS" in told
        assert told.count(RESUMES) == 1
        between.release()
        with gateway(material, f"127.0.0.1:{port}") as patient:
            assert patient.made(wanted).state == State.STATE_SUCCEEDED
