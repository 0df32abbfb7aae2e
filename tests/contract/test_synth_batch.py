"""BatchGenerateAudio, as its callers see it."""

import asyncio
import time

import grpc
import numpy as np
import pytest
from demiurge.synth.v1 import synth_service_pb2 as pb
from demiurge.synth.v1 import synth_service_pb2_grpc as pb_grpc
from google.protobuf import duration_pb2

from services.runtime.metrics import Metrics
from services.runtime.model_store import ModelStore
from services.runtime.object_store.folder import FolderStore
from tests.contract.test_synth_servicer import (
    models,
    refused,
    request,
    samples_of,
    save_unagan,
    service,
    store,
    stub,
)

__all__ = ["models", "store", "stub"]


def batch(
    *seeds: int, folder: str = "raw", nanos: int = 250_000_000
) -> pb.BatchGenerateAudioRequest:
    return pb.BatchGenerateAudioRequest(
        unagan_model_id="singer",
        melgan_model_id="voice",
        duration=duration_pb2.Duration(nanos=nanos),
        items=[
            pb.GenerateAudioItem(seed=seed, output_key=f"audio/{folder}/{seed}.wav")
            for seed in seeds
        ],
    )


def generated(response: pb.BatchGenerateAudioResponse) -> list[pb.GenerateAudioResponse]:
    assert all(result.WhichOneof("outcome") == "generated" for result in response.results)
    return [result.generated for result in response.results]


def wait_for_a_sound(store: FolderStore) -> None:
    while not list(store.keys("audio/")):
        time.sleep(0.01)


async def test_each_item_is_what_a_call_of_its_own_gives_within_one_step_of_16_bits(
    stub: pb_grpc.SynthServiceStub, store: FolderStore
) -> None:
    answers = generated(await stub.BatchGenerateAudio(batch(8, 3, 2**64 - 1)))

    assert [answer.audio.key for answer in answers] == [
        f"audio/raw/{seed}.wav" for seed in (8, 3, 2**64 - 1)
    ]
    for seed, answer in zip((8, 3, 2**64 - 1), answers, strict=True):
        assert (answer.sample_count, answer.sample_rate_hertz) == (4000, 16_000)
        alone = await stub.GenerateAudio(request(f"audio/alone/{seed}.wav", seed))
        difference = samples_of(store, answer.audio) - samples_of(store, alone.audio)
        assert np.abs(difference).max() <= 1 / 2**15


async def test_what_is_asked_for_and_what_is_made_is_counted(
    stub: pb_grpc.SynthServiceStub, metrics: Metrics
) -> None:
    def counted(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(f"demiurge_{name}", labels)

    await stub.BatchGenerateAudio(batch(1, 2, 3))
    # Two are there already.
    await stub.BatchGenerateAudio(batch(3, 1, 4))
    await stub.GenerateAudio(request("audio/raw/5.wav", 5))

    assert (counted("batch_items_sum"), counted("batch_items_count")) == (6, 2)
    assert counted("batch_items_bucket", le="2.0") == 0
    assert counted("batch_items_bucket", le="4.0") == 2
    method = "demiurge.synth.v1.SynthService"
    assert counted("sound_seconds_total", method=f"{method}/BatchGenerateAudio") == 4 * 0.25
    assert counted("sound_seconds_total", method=f"{method}/GenerateAudio") == 0.25


async def test_a_repeated_batch_makes_only_what_is_missing(
    stub: pb_grpc.SynthServiceStub, store: FolderStore, models: ModelStore
) -> None:
    first = generated(await stub.BatchGenerateAudio(batch(1, 2)))
    for version in (models.find("unagan", "singer"), models.find("melgan", "voice")):
        store.delete(version.weights_key)

    server = service(store)
    again = generated(await server.BatchGenerateAudio(batch(2, 1), None))  # type: ignore[arg-type]
    one = await server.GenerateAudio(request("audio/raw/2.wav", 2), None)  # type: ignore[arg-type]

    assert again == first[::-1]
    assert one == first[1]


async def test_a_sound_whose_call_was_killed_before_its_marker_is_taken_as_it_is(
    stub: pb_grpc.SynthServiceStub, store: FolderStore
) -> None:
    alone = await stub.GenerateAudio(request("audio/raw/5.wav", 5))
    for key in list(store.keys("markers/")):
        store.delete(key)

    answers = generated(await stub.BatchGenerateAudio(batch(4, 5, 6)))

    assert answers[1] == alone


async def test_an_item_that_fails_fails_alone_with_what_a_single_call_fails_with(
    stub: pb_grpc.SynthServiceStub, store: FolderStore, models: ModelStore
) -> None:
    await stub.GenerateAudio(request("audio/raw/2.wav", 77))

    response = await stub.BatchGenerateAudio(batch(1, 2, 3))

    assert [result.WhichOneof("outcome") for result in response.results] == [
        "generated",
        "failure",
        "generated",
    ]
    failure = response.results[1].failure
    alone = await refused(stub.GenerateAudio(request("audio/raw/2.wav", 2)))
    assert failure.code == alone.code().value[0] == grpc.StatusCode.ALREADY_EXISTS.value[0]
    assert failure.message == alone.details()
    assert "audio/raw/2.wav" in failure.message
    assert failure.reason
    assert samples_of(store, response.results[2].generated.audio).std() > 0

    save_unagan(models, "singer", step=2)
    other = await stub.BatchGenerateAudio(batch(1, 9))
    assert [result.WhichOneof("outcome") for result in other.results] == ["failure", "generated"]


async def test_what_concerns_all_items_fails_the_call(stub: pb_grpc.SynthServiceStub) -> None:
    unknown = batch(1)
    unknown.unagan_model_id = "nobody"
    assert (await refused(stub.BatchGenerateAudio(unknown))).code() is grpc.StatusCode.NOT_FOUND

    long = batch(*range(256), nanos=0)
    long.duration.seconds = 3
    error = await refused(stub.BatchGenerateAudio(long))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "DEMIURGE_SYNTH_MAX_SECONDS" in (error.details() or "")


async def test_whoever_leaves_ends_the_batch_and_what_was_finished_is_there(
    stub: pb_grpc.SynthServiceStub, store: FolderStore
) -> None:
    long = batch(*range(40), nanos=0)
    long.duration.seconds = 10
    call = stub.BatchGenerateAudio(long)
    asking = asyncio.ensure_future(call.code())
    await asyncio.to_thread(wait_for_a_sound, store)
    call.cancel()
    assert await asking is grpc.StatusCode.CANCELLED
    # The device is free: this one need not wait for forty.
    await stub.GenerateAudio(request("audio/raw/next.wav"))

    finished = list(store.keys("audio/raw/"))
    assert 2 <= len(finished) < 40
    assert len(list(store.keys("markers/"))) == len(finished)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
async def test_precisions_have_markers_of_their_own(
    store: FolderStore, models: ModelStore, precision: str
) -> None:
    exact = await service(store).GenerateAudio(request("audio/raw/a.wav"), None)  # type: ignore[arg-type]
    server = service(store, precision=precision)

    again = await server.GenerateAudio(request("audio/raw/b.wav"), None)  # type: ignore[arg-type]

    assert (again.audio.sha256 == exact.audio.sha256) == (precision == "float32")
    assert len(list(store.keys("markers/"))) == 2
