"""Slow listeners, damaged sources and full disks, at a real playback service."""

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import grpc
import numpy as np
import pytest
import soundfile
from demiurge.audio.v1 import audio_pb2
from demiurge.playback.v1 import playback_service_pb2 as pb
from demiurge.playback.v1 import playback_service_pb2_grpc as pb_grpc

from tests.contract.playing import (
    HOP,
    CountingStore,
    ended,
    failure,
    many,
    playing,
    put,
    sound,
    table,
)
from tests.full_disk import files_of_at_most

MEBIBYTE = 2**20
FLOAT = pb.RenderSettings(encoding=audio_pb2.AUDIO_ENCODING_WAV_FLOAT)


@pytest.fixture
def store(tmp_path: Path) -> CountingStore:
    return CountingStore(tmp_path)


@pytest.fixture
async def stub(store: CountingStore) -> AsyncIterator[pb_grpc.PlaybackServiceStub]:
    async with playing(store) as stub:
        yield stub


async def heard(call: "grpc.aio.UnaryStreamCall[object, pb.StreamAudioResponse]") -> np.ndarray:
    """The (frames, channels) of a stream until it ends, however it ends."""
    messages = []
    with suppress(grpc.aio.AioRpcError):
        while (message := await call.read()) is not grpc.aio.EOF:
            messages.append(message)
    samples = np.frombuffer(b"".join(message.samples for message in messages), "<f4")
    return samples.reshape(-1, messages[0].channel_count if messages else 1)


async def test_without_a_number_of_channels_no_source_is_read_before_its_turn(stub, store):
    sources = [
        put(store, f"audio/birds/{i}.wav", sound(i, hops=40, channels=1 + i % 3)) for i in range(6)
    ]
    matches = table(sources, [(i, frame * HOP) for i in range(6) for frame in range(40)])
    store.hold_at = "audio/birds/3.wav"
    messages = aiter(stub.StreamAudio(pb.StreamAudioRequest(matches=matches, settings=FLOAT)))

    first = await anext(messages)

    assert first.channel_count == 3
    assert "audio/birds/4.wav" not in store.opened
    store.go_on.set()
    streamed = first.samples + b"".join([message.samples async for message in messages])
    rendered = await stub.RenderAudio(
        pb.RenderAudioRequest(matches=matches, settings=FLOAT, output_prefix="renders/r")
    )
    piece, _ = soundfile.read(
        io.BytesIO(store.read(rendered.audio.key)), dtype="float32", always_2d=True
    )
    np.testing.assert_array_equal(np.frombuffer(streamed, "<f4").reshape(-1, 3), piece)


async def test_a_listener_who_holds_still_lets_only_so_much_be_rendered_ahead(stub, store):
    # 50 MiB of samples, of 160 KiB a source.
    matches = many(store, 320)
    call = stub.StreamAudio(pb.StreamAudioRequest(matches=matches))
    await call.read()

    ahead = -1
    while ahead < len(store.opened):
        ahead = len(store.opened)
        await asyncio.sleep(0.5)

    # What HTTP/2 lets be under way is a few MiB, however long the piece is.
    assert ahead * 40 * HOP * 4 < 16 * MEBIBYTE
    rest = await heard(call)
    assert len(rest) > 319 * 40 * HOP
    assert len(store.opened) == 320


async def test_a_listener_who_leaves_while_samples_are_under_way_is_no_error(stub, store, capsys):
    request = pb.StreamAudioRequest(matches=many(store, 100))
    for _ in range(5):
        call = stub.StreamAudio(request)
        await call.read()
        await ended(call)
    assert "unforeseen" not in capsys.readouterr().out


@pytest.mark.parametrize("method", ["RenderAudio", "StreamAudio"])
async def test_whoever_leaves_stops_the_reading_of_a_long_source(stub, store, method):
    long = put(store, "audio/birds/long.wav", sound(hops=8 * 1024))
    matches = table([long], [(0, i * HOP) for i in range(4)])
    store.hold_after_bytes = MEBIBYTE
    if method == "RenderAudio":
        call = stub.RenderAudio(pb.RenderAudioRequest(matches=matches, output_prefix="renders/r"))
    else:
        call = stub.StreamAudio(pb.StreamAudioRequest(matches=matches))
    asking = asyncio.ensure_future(call.code())
    assert await asyncio.to_thread(store.holding.wait, 20)

    await ended(call)
    store.go_on.set()

    assert await asking == grpc.StatusCode.CANCELLED
    assert await asyncio.to_thread(store.closed.wait, 20)
    assert store.bytes_read < 2 * MEBIBYTE < long.size_bytes
    assert not list(store.list("renders/"))


def damage(store: CountingStore, key: str, at: int) -> None:
    """Flips one bit, as a disk does: behind the store's back."""
    path = store.folder / key
    content = bytearray(path.read_bytes())
    content[at] ^= 0x10
    path.write_bytes(content)


# In the first letters, the number of channels, the rate, and the samples of a WAV file.
@pytest.mark.parametrize("at", [2, 22, 25, 60_000])
async def test_a_flipped_bit_in_a_source_is_named_and_never_heard(stub, store, at):
    matches = many(store, 3)
    whole = await heard(stub.StreamAudio(pb.StreamAudioRequest(matches=matches)))
    damage(store, "audio/birds/01.wav", at)

    stream = stub.StreamAudio(pb.StreamAudioRequest(matches=matches))
    streamed = await heard(stream)
    code, culprit, _ = await failure(
        stub.RenderAudio(pb.RenderAudioRequest(matches=matches, output_prefix="renders/r"))
    )

    assert (code, culprit) == ("DATA_LOSS", "audio/birds/01.wav")
    assert await stream.code() == grpc.StatusCode.DATA_LOSS
    assert "audio/birds/01.wav" in await stream.details()
    assert not list(store.list("renders/"))
    # All of the sound before it may have been heard, in as many channels as its header claimed.
    assert len(streamed) <= 40 * HOP
    assert (streamed == whole[: len(streamed)]).all()


async def test_a_render_that_the_disk_has_no_room_for_says_so_and_stores_nothing(
    stub, store, tmp_path
):
    matches = many(store, 12)
    request = pb.RenderAudioRequest(matches=matches, output_prefix="renders/large")

    with files_of_at_most(MEBIBYTE):
        code, culprit, message = await failure(stub.RenderAudio(request))

    assert (code, culprit) == ("RESOURCE_EXHAUSTED", "renders/large")
    assert "no room" in message
    assert "TMPDIR" in message
    assert not list(store.list("renders/"))
    assert (await stub.RenderAudio(request)).sample_count == 12 * 40 * HOP
