import asyncio
import hashlib
import io
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import soundfile
from demiurge.audio.v1 import audio_pb2
from demiurge.descriptor.v1 import descriptor_service_pb2 as pb
from demiurge.descriptor.v1 import descriptor_service_pb2_grpc as pb_grpc

from services.audio.statistics import FeatureStatistics
from services.audio.track_json import read_tracks
from services.descriptor import mfcc, servicer
from services.descriptor.description import Description
from services.descriptor.extraction import described, extract_file
from services.descriptor.mfcc import ExtractionSettings
from services.descriptor.servicer import DescriptorServicer, descriptor_key
from services.descriptor.settings import DescriptorSettings
from services.errors import (
    BusyError,
    CancelledError,
    CorruptObjectError,
    NotFoundError,
    ObjectKeyError,
    TimeExceededError,
    UnreadableAudioError,
)
from services.runtime.messages import ref_to_message, statistics_from_message, track_from_message
from services.runtime.metrics import Metrics
from services.runtime.object_store.folder import FolderStore
from services.runtime.object_store.port import StoredObject


def wav(seconds: float = 1.0, seed: int = 0, rate: int = 44_100) -> bytes:
    file = io.BytesIO()
    samples = np.random.default_rng(seed).uniform(-0.5, 0.5, int(seconds * rate))
    soundfile.write(file, samples, rate, format="WAV", subtype="PCM_16")
    return file.getvalue()


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path)


def opened(store: FolderStore, **settings: int) -> DescriptorServicer:
    metrics = Metrics().queue("descriptor")
    return DescriptorServicer(DescriptorSettings(**settings), store, metrics)


@pytest.fixture
async def service(store: FolderStore) -> AsyncIterator[DescriptorServicer]:
    servicer = opened(store, workers=2)
    yield servicer
    await servicer.shut_down()


@pytest.fixture
async def stub(service: DescriptorServicer) -> AsyncIterator[pb_grpc.DescriptorServiceStub]:
    server = grpc.aio.server()
    pb_grpc.add_DescriptorServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await service.warm_up()
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield pb_grpc.DescriptorServiceStub(channel)
    await server.stop(None)


def request_for(
    store: FolderStore, content: bytes, key: str = "audio/birds/wren 1.wav", **settings: int
) -> pb.ExtractDescriptorsRequest:
    return pb.ExtractDescriptorsRequest(
        audio=ref_to_message(store.put(key, content)), settings=pb.ExtractionSettings(**settings)
    )


async def test_a_stored_sound_is_described_and_the_description_stored(
    stub: pb_grpc.DescriptorServiceStub, store: FolderStore
) -> None:
    content = wav()

    response = await stub.ExtractDescriptors(request_for(store, content))

    expected = extract_file(io.BytesIO(content), name="wren 1.wav", settings=ExtractionSettings())
    track = track_from_message(response.track)
    assert track.source == "wren 1.wav"
    assert track.feature_names == expected.feature_names
    assert np.array_equal(track.values, expected.values)
    assert (track.sample_rate_hertz, track.hop_length_samples) == (44_100, 1024)
    assert response.track.framing == audio_pb2.FRAMING_CENTERED
    assert not response.deltas_are_zero

    [stored] = read_tracks(
        store.read(response.object.key, sha256=response.object.sha256), source="stored"
    )
    assert stored.source == "wren 1.wav"
    assert np.array_equal(stored.values, expected.values)
    assert response.object.media_type == "application/json"

    moments = statistics_from_message(response.statistics)
    assert moments.frame_count == expected.frame_count
    assert np.array_equal(moments.means, FeatureStatistics.of(expected).means)


async def test_settings_of_a_request_are_obeyed(
    stub: pb_grpc.DescriptorServiceStub, store: FolderStore
) -> None:
    response = await stub.ExtractDescriptors(
        request_for(store, wav(), sample_rate_hertz=22_050, hop_length_samples=512)
    )

    assert (response.track.sample_rate_hertz, response.track.hop_length_samples) == (22_050, 512)
    assert response.track.frame_count == 1 + 22_050 // 512


async def test_short_sounds_are_flagged_also_when_found_again(
    stub: pb_grpc.DescriptorServiceStub, store: FolderStore
) -> None:
    request = request_for(store, wav(0.1))

    for response in (
        await stub.ExtractDescriptors(request),
        await stub.ExtractDescriptors(request),
    ):
        assert response.deltas_are_zero
        assert not track_from_message(response.track).values[:, 13:].any()


async def test_long_tracks_go_by_reference_and_can_be_read_back(
    stub: pb_grpc.DescriptorServiceStub, store: FolderStore
) -> None:
    response = await stub.ExtractDescriptors(request_for(store, wav(2.0), hop_length_samples=8))

    assert response.track.frame_count * 39 * 4 > 1024 * 1024
    assert response.track.object == response.object
    track = track_from_message(response.track, store)
    assert track.frame_count == response.track.frame_count == 1 + 88_200 // 8


async def test_what_was_described_once_is_read_and_not_described_again(
    stub: pb_grpc.DescriptorServiceStub, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = request_for(store, wav())
    first = await stub.ExtractDescriptors(request)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("described again")

    monkeypatch.setattr(servicer, "described", refuse)

    assert await stub.ExtractDescriptors(request) == first


async def test_a_description_that_is_deleted_just_before_it_is_opened_is_made_again(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = opened(store)
    request = request_for(store, wav(0.1))
    first = await service.ExtractDescriptors(request, None)
    stat = store.stat

    def deleted_after(key: str) -> StoredObject:
        found = stat(key)
        store.delete(key)
        return found

    monkeypatch.setattr(store, "stat", deleted_after)

    assert await service.ExtractDescriptors(request, None) == first
    assert store.read(first.object.key, sha256=first.object.sha256)
    await service.shut_down()


async def test_the_same_content_under_two_names_is_described_under_each(
    stub: pb_grpc.DescriptorServiceStub, store: FolderStore
) -> None:
    content = wav()

    one = await stub.ExtractDescriptors(request_for(store, content, "audio/birds/one.wav"))
    two = await stub.ExtractDescriptors(request_for(store, content, "audio/birds/two.wav"))
    elsewhere = await stub.ExtractDescriptors(request_for(store, content, "audio/b/one.wav"))

    assert [one.track.source, two.track.source] == ["one.wav", "two.wav"]
    assert one.track.values == two.track.values
    assert one.object.key != two.object.key
    assert elsewhere == one


async def test_no_more_files_are_described_at_once_than_there_are_workers(
    service: DescriptorServicer, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_at_work = threading.Barrier(2)
    lock = threading.Lock()
    at_work: list[int] = [0, 0]  # now, and at most

    @contextmanager
    def counted(*args: Any, **keywords: Any) -> Iterator[Description]:
        with lock:
            at_work[0] += 1
            at_work[1] = max(at_work)
        try:
            two_at_work.wait(timeout=30)
            with described(*args, **keywords) as description:
                yield description
        finally:
            with lock:
                at_work[0] -= 1

    monkeypatch.setattr(servicer, "described", counted)
    requests = [request_for(store, wav(0.1, seed), f"audio/b/{seed}.wav") for seed in range(6)]

    await asyncio.gather(*(service.ExtractDescriptors(request, None) for request in requests))

    assert at_work == [0, 2]


async def test_a_worker_whose_caller_left_takes_nothing_new_until_it_is_done(
    service: DescriptorServicer, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    both_at_work = threading.Barrier(3)
    go_on = threading.Event()
    begun: list[str] = []

    def held(*args: Any, name: str, **keywords: Any) -> AbstractContextManager[Description]:
        begun.append(name)
        if len(begun) <= 2:
            both_at_work.wait(timeout=30)
            assert go_on.wait(30)
        return described(*args, name=name, **keywords)

    monkeypatch.setattr(servicer, "described", held)
    leaving = [
        asyncio.ensure_future(
            service.ExtractDescriptors(
                request_for(store, wav(0.1, seed), f"audio/b/{seed}.wav"), None
            )
        )
        for seed in range(3)
    ]
    await asyncio.to_thread(both_at_work.wait, 30)
    for call in leaving:
        call.cancel()
    await asyncio.wait(leaving)
    staying = asyncio.ensure_future(
        service.ExtractDescriptors(request_for(store, wav(0.1, 9), "audio/b/9.wav"), None)
    )
    await asyncio.wait([staying], timeout=0.3)
    assert sorted(begun) == ["0.wav", "1.wav"]

    go_on.set()
    assert (await staying).track.source == "9.wav"
    assert "2.wav" not in begun  # nobody waited for it any more


@pytest.mark.parametrize("how", ["cancelled", "too late"])
async def test_a_description_that_nobody_waits_for_any_more_ends_and_leaves_nothing(  # noqa: PLR0917 - fixtures
    stub: pb_grpc.DescriptorServiceStub,
    service: DescriptorServicer,
    store: FolderStore,
    how: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    at_work = threading.Event()
    ended: list[type[BaseException]] = []

    @contextmanager
    def watched(
        *args: Any, checkpoint: Callable[[], None], **keywords: Any
    ) -> Iterator[Description]:
        blocks = 0

        def counted() -> None:
            nonlocal blocks
            blocks += 1
            if blocks == 5:
                at_work.set()
                for _ in range(3_000):
                    checkpoint()
                    time.sleep(0.01)

        try:
            with described(*args, checkpoint=counted, **keywords) as description:
                yield description
        except BaseException as error:
            ended.append(type(error))
            raise

    monkeypatch.setattr(servicer, "described", watched)
    request = request_for(store, wav(60.0), "audio/birds/long.wav")
    call = stub.ExtractDescriptors(request, timeout=None if how == "cancelled" else 2.0)
    assert await asyncio.to_thread(at_work.wait, 30)
    if how == "cancelled":
        call.cancel()
    with pytest.raises((asyncio.CancelledError, grpc.aio.AioRpcError)):
        await call
    await service.shut_down()

    [error] = ended
    assert issubclass(error, CancelledError | TimeExceededError)
    assert not list(store.keys("descriptors/"))
    assert not list(scratch.iterdir())


async def test_of_a_thousand_requests_those_beyond_the_queue_are_told_to_come_again(
    store: FolderStore,
) -> None:
    service = opened(store, workers=1, queue_capacity=3)
    requests = [request_for(store, wav(0.1, seed), f"audio/b/{seed}.wav") for seed in range(20)]

    answers = await asyncio.gather(
        *(service.ExtractDescriptors(requests[index % 20], None) for index in range(1_000)),
        return_exceptions=True,
    )
    await service.shut_down()

    refused = [answer for answer in answers if isinstance(answer, BusyError)]
    described = [answer for answer in answers if isinstance(answer, pb.ExtractDescriptorsResponse)]
    assert len(refused) + len(described) == 1_000
    # One at work and three that wait, and whoever came as one of them had ended.
    assert 4 <= len(described) < 20


async def test_an_unreadable_sound_is_refused_by_name_and_nothing_is_stored(
    service: DescriptorServicer, store: FolderStore
) -> None:
    request = request_for(store, wav()[:10_000], "audio/birds/half.wav")

    with pytest.raises(UnreadableAudioError) as caught:
        await service.ExtractDescriptors(request, None)

    assert caught.value.culprit == "half.wav"
    assert not list(store.list("descriptors/"))


async def test_sounds_that_are_missing_or_have_changed_are_refused(
    service: DescriptorServicer, store: FolderStore
) -> None:
    request = request_for(store, wav())
    store.put(request.audio.key, wav(seed=1))
    with pytest.raises(CorruptObjectError, match="wren"):
        await service.ExtractDescriptors(request, None)

    store.delete(request.audio.key)
    with pytest.raises(NotFoundError, match="wren"):
        await service.ExtractDescriptors(request, None)

    request.audio.key = "audio/../../etc/passwd"
    with pytest.raises(ObjectKeyError):
        await service.ExtractDescriptors(request, None)


@pytest.mark.parametrize(
    "content",
    [b"{}", b"not JSON", b'{"_id": ["a", "b"], "_sample": [0, 0], "mfcc0": [1, 2]}'],
)
async def test_a_damaged_description_is_told_from_bad_input(
    service: DescriptorServicer, store: FolderStore, content: bytes
) -> None:
    request = request_for(store, wav())
    response = await service.ExtractDescriptors(request, None)
    store.put(response.object.key, content)

    with pytest.raises(CorruptObjectError, match=response.object.key):
        await service.ExtractDescriptors(request, None)


def test_a_description_is_named_for_all_that_it_depends_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sha256 = hashlib.sha256(b"sound").hexdigest()
    settings = ExtractionSettings()

    key = descriptor_key(sha256, "wren.wav", settings)
    others = {
        descriptor_key(hashlib.sha256(b"other").hexdigest(), "wren.wav", settings),
        descriptor_key(sha256, "owl.wav", settings),
        descriptor_key(sha256, "wren.wav", replace(settings, hop_length=512)),
        descriptor_key(sha256, "wren.wav", replace(settings, sample_rate_hertz=22_050)),
    }
    assert descriptor_key(sha256, "wren.wav", settings) == key
    monkeypatch.setattr(mfcc, "ALGORITHM", mfcc.ALGORITHM + 1)
    others.add(descriptor_key(sha256, "wren.wav", settings))

    assert len(others | {key}) == 6
