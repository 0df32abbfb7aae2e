"""The playback service behind a real server, over a real folder store."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import soundfile
from demiurge.audio.v1 import audio_pb2
from demiurge.playback.v1 import playback_service_pb2 as pb
from demiurge.playback.v1 import playback_service_pb2_grpc as pb_grpc
from google.protobuf.duration_pb2 import Duration

from services.playback.servicer import MAX_MESSAGE_BYTES, render_settings
from services.runtime.messages import ref_to_message
from tests.contract.playing import (
    HOP,
    RATE,
    CountingStore,
    ended,
    failure,
    many,
    playing,
    put,
    sound,
    table,
)


@pytest.fixture
def store(tmp_path: Path) -> CountingStore:
    return CountingStore(tmp_path)


@pytest.fixture
async def stub(store: CountingStore) -> AsyncIterator[pb_grpc.PlaybackServiceStub]:
    async with playing(store) as stub:
        yield stub


@pytest.mark.parametrize(
    ("encoding", "extension", "subtype"),
    [
        (audio_pb2.AUDIO_ENCODING_UNSPECIFIED, "wav", "PCM_16"),
        (audio_pb2.AUDIO_ENCODING_WAV_PCM16, "wav", "PCM_16"),
        (audio_pb2.AUDIO_ENCODING_WAV_PCM24, "wav", "PCM_24"),
        (audio_pb2.AUDIO_ENCODING_WAV_FLOAT, "wav", "FLOAT"),
        (audio_pb2.AUDIO_ENCODING_FLAC, "flac", "PCM_24"),
    ],
)
async def test_a_file_matched_frame_by_frame_is_rendered_as_it_was(
    stub, store, encoding, extension, subtype
):
    original = sound(channels=2)
    source = put(store, "audio/birds/wren 1.wav", original)
    request = pb.RenderAudioRequest(
        matches=table([source], [(0, i * HOP) for i in range(4)]),
        settings=pb.RenderSettings(encoding=encoding),
        output_prefix="renders/r1",
    )
    response = await stub.RenderAudio(request)
    assert response.audio.key == f"renders/r1/piece.{extension}"
    assert response.audio.media_type == f"audio/{extension}"
    content = store.read(response.audio.key, sha256=response.audio.sha256)
    assert soundfile.info(io.BytesIO(content)).subtype == subtype
    samples, rate = soundfile.read(io.BytesIO(content), dtype="float64")
    np.testing.assert_array_equal(samples * 2**15, original)
    assert (rate, response.sample_rate_hertz) == (RATE, RATE)
    assert (response.sample_count, response.channel_count) == (4 * HOP, 2)
    assert response.peak == np.abs(original.astype(float)).max() / 2**15
    assert response.source_count == 1


async def test_sound_edit_list_and_spectrogram_are_stored_and_the_same_again(stub, store):
    sources = [put(store, f"audio/birds/{i}.wav", sound(i)) for i in range(3)]
    matches = table(sources, [(0, 0), (2, 999), (2, 999 + HOP), (0, 4 * HOP)])
    settings = pb.RenderSettings(encoding=audio_pb2.AUDIO_ENCODING_WAV_FLOAT)
    one, other = [
        await stub.RenderAudio(
            pb.RenderAudioRequest(matches=matches, settings=settings, output_prefix=prefix)
        )
        for prefix in ("renders/one", "renders/other")
    ]
    for field, name in (
        ("audio", "piece.wav"),
        ("edit_list", "edit_list.json"),
        ("spectrogram", "spectrogram.png"),
    ):
        assert getattr(one, field).key == f"renders/one/{name}"
        assert getattr(one, field).sha256 == getattr(other, field).sha256
        assert store.stat(f"renders/one/{name}").sha256 == getattr(one, field).sha256
    assert (one.edit_list.media_type, one.spectrogram.media_type) == (
        "application/json",
        "image/png",
    )
    listed = json.loads(store.read(one.edit_list.key))
    assert [segment["source"] for segment in listed["segments"]] == [
        "audio/birds/0.wav",
        "audio/birds/2.wav",
        "audio/birds/0.wav",
    ]
    assert listed["sources"][0]["sha256"] == sources[0].sha256
    assert one.source_count == 2
    assert store.opened.count("audio/birds/0.wav") == 2  # once a request


async def test_a_stream_is_the_same_sound_in_messages_of_at_most_64_kib(stub, store):
    matches = many(store, 3)
    settings = pb.RenderSettings(encoding=audio_pb2.AUDIO_ENCODING_WAV_FLOAT, channel_count=2)
    rendered = await stub.RenderAudio(
        pb.RenderAudioRequest(matches=matches, settings=settings, output_prefix="renders/r")
    )
    messages = [
        message
        async for message in stub.StreamAudio(
            pb.StreamAudioRequest(matches=matches, settings=settings)
        )
    ]
    assert len(messages) > 10
    assert max(message.ByteSize() for message in messages) <= MAX_MESSAGE_BYTES == 65_536
    assert {(m.sample_rate_hertz, m.channel_count) for m in messages} == {(RATE, 2)}
    streamed = np.frombuffer(b"".join(message.samples for message in messages), "<f4")
    content = io.BytesIO(store.read(rendered.audio.key))
    samples, _ = soundfile.read(content, dtype="float32", always_2d=True)
    np.testing.assert_array_equal(streamed.reshape(-1, 2), samples)


async def test_the_first_message_leaves_before_the_whole_is_rendered(stub, store):
    matches = many(store, 6)
    store.hold_at = "audio/birds/03.wav"
    call = stub.StreamAudio(
        pb.StreamAudioRequest(matches=matches, settings=pb.RenderSettings(channel_count=1))
    )
    messages = aiter(call)
    first = await anext(messages)
    assert first.samples
    assert "audio/birds/04.wav" not in store.opened
    store.go_on.set()
    rest = [message async for message in messages]
    count = sum(len(message.samples) for message in [first, *rest]) // 4
    assert count == 6 * 40 * HOP


async def test_a_stream_that_nobody_listens_to_any_more_stops(stub, store):
    matches = many(store, 12)
    store.hold_at = "audio/birds/03.wav"
    call = stub.StreamAudio(
        pb.StreamAudioRequest(matches=matches, settings=pb.RenderSettings(channel_count=1))
    )
    await call.read()
    assert await asyncio.to_thread(store.holding.wait, 20)
    await ended(call)
    store.go_on.set()
    await asyncio.sleep(0.3)
    assert store.opened[-1] == "audio/birds/03.wav"


async def test_a_cancelled_render_stops_and_stores_nothing(stub, store):
    matches = many(store, 12)
    store.hold_at = "audio/birds/03.wav"
    call = stub.RenderAudio(
        pb.RenderAudioRequest(matches=matches, output_prefix="renders/cancelled")
    )
    asking = asyncio.ensure_future(call.code())
    assert await asyncio.to_thread(store.holding.wait, 20)
    await ended(call)
    assert await asking == grpc.StatusCode.CANCELLED
    store.go_on.set()
    await asyncio.sleep(0.3)
    assert store.opened[-1] == "audio/birds/03.wav"
    assert not list(store.list("renders/"))


async def test_renders_beyond_the_queue_are_told_to_come_again(stub, store):
    matches = many(store, 1)
    store.hold_at = "audio/birds/00.wav"
    one, two = (
        pb.RenderAudioRequest(matches=matches, output_prefix=f"renders/{name}")
        for name in ("one", "two")
    )
    at_work = stub.RenderAudio(one)
    asking = asyncio.ensure_future(at_work.code())
    assert await asyncio.to_thread(store.holding.wait, 20)
    waiting = stub.RenderAudio(two)
    waited = asyncio.ensure_future(waiting.code())
    await asyncio.sleep(0.2)
    code, _, message = await failure(stub.RenderAudio(one))
    assert (code, "1 renders wait" in message) == ("RESOURCE_EXHAUSTED", True)

    # Who leaves the queue makes room; who leaves the thread does not, before it has stopped.
    await ended(waiting)
    assert await waited == grpc.StatusCode.CANCELLED
    await ended(at_work)
    assert await asking == grpc.StatusCode.CANCELLED
    waiting = stub.RenderAudio(two)
    waited = asyncio.ensure_future(waiting.code())
    await asyncio.sleep(0.2)
    assert store.opened == ["audio/birds/00.wav"]
    store.go_on.set()
    assert await waited == grpc.StatusCode.OK
    assert not list(store.list("renders/one/"))


async def test_streams_beyond_their_number_are_told_to_come_again(stub, store):
    request = pb.StreamAudioRequest(matches=many(store, 12))
    calls = [stub.StreamAudio(request) for _ in range(2)]
    for call in calls:
        await call.read()
    code, _, message = await failure(stub.StreamAudio(request).read())
    assert (code, "2 pieces are being streamed" in message) == ("RESOURCE_EXHAUSTED", True)
    await ended(calls[0])
    assert (await stub.StreamAudio(request).read()).samples


@pytest.mark.parametrize("method", ["RenderAudio", "StreamAudio"])
@pytest.mark.parametrize(
    "expected",
    [
        ("empty table", "INVALID_ARGUMENT", "matches"),
        ("start beyond the end", "INVALID_ARGUMENT", "audio/birds/wren 1.wav"),
        ("text named .wav", "INVALID_ARGUMENT", "audio/birds/text.wav"),
        ("missing source", "NOT_FOUND", "audio/birds/none.wav"),
        ("replaced source", "DATA_LOSS", "audio/birds/wren 1.wav"),
        ("source out of the store", "INVALID_ARGUMENT", "../../etc/passwd"),
        ("index without source", "INVALID_ARGUMENT", "source_indices"),
    ],
)
async def test_bad_input_is_refused_by_name_and_nothing_is_stored(stub, store, method, expected):
    case, *refusal = expected
    wren = put(store, "audio/birds/wren 1.wav", sound())
    text = ref_to_message(store.put("audio/birds/text.wav", b"no sound at all"))
    other = "f" * 64
    matches = {
        "empty table": table([wren], []),
        "start beyond the end": table([wren], [(0, 0), (0, 4 * HOP + 1)]),
        "text named .wav": table([wren, text], [(0, 0), (1, 0)]),
        "missing source": table(
            [audio_pb2.ObjectRef(key="audio/birds/none.wav", sha256=other)], [(0, 0)]
        ),
        "replaced source": table([audio_pb2.ObjectRef(key=wren.key, sha256=other)], [(0, 0)]),
        "source out of the store": table(
            [audio_pb2.ObjectRef(key="../../etc/passwd", sha256=other)], [(0, 0)]
        ),
        "index without source": table([wren], [(1, 0)]),
    }[case]
    if method == "RenderAudio":
        call = stub.RenderAudio(pb.RenderAudioRequest(matches=matches, output_prefix="renders/bad"))
    else:
        call = stub.StreamAudio(pb.StreamAudioRequest(matches=matches)).read()
    code, culprit, message = await failure(call)
    assert [code, culprit] == refusal
    if case == "start beyond the end":
        assert "frame 1" in message
    assert not list(store.list("renders/"))


async def test_an_output_outside_renders_is_refused(stub, store):
    wren = put(store, "audio/birds/wren 1.wav", sound())
    for prefix in ("audio/birds", "renders/../models", "renders/"):
        request = pb.RenderAudioRequest(matches=table([wren], [(0, 0)]), output_prefix=prefix)
        code, _, message = await failure(stub.RenderAudio(request))
        assert code == "INVALID_ARGUMENT"
        assert "output_prefix" in message


def test_an_unset_crossfade_is_the_published_one_and_0_is_none():
    assert render_settings(pb.RenderSettings()).crossfade_seconds == 0.022
    explicit = pb.RenderSettings(crossfade=Duration(nanos=5_000_000))
    assert render_settings(explicit).crossfade_seconds == 0.005
    assert render_settings(pb.RenderSettings(crossfade=Duration())).crossfade_seconds == 0
