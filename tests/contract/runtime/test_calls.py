"""What a call carries with it, when it is tried again, and how it ends early."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from demiurge.query.v1 import query_service_pb2 as query
from demiurge.query.v1 import query_service_pb2_grpc as query_grpc

from services import errors
from services.runtime.call import Call, serving
from services.runtime.channels import open_channel
from services.runtime.status import remote_errors
from tests.contract.runtime.conftest import (
    QUERY,
    SETTINGS,
    SHA,
    QueryServicer,
    get,
    registration,
    until,
)


async def test_request_ids_come_back_and_are_logged(
    log: Callable[[], list[dict[str, Any]]], stub: Any, servicer: QueryServicer
) -> None:
    for sent in ("r-1", "", "évil\n", "x" * 200):
        metadata = [("x-request-id", sent)] if sent.isascii() else []
        call = stub.GetCollection(get("x"), metadata=metadata)
        await call
        back = (await call.trailing_metadata())["x-request-id"]
        assert servicer.seen[-1].request_id == back
        assert (back == sent) == (sent == "r-1")
        ids = {back}
        await until(lambda ids=ids: ids <= {line.get("request_id") for line in log()})
    line = next(line for line in log() if line.get("request_id") == "r-1")
    assert (line["event"], line["method"], line["code"]) == (
        "call",
        f"/{QUERY}/GetCollection",
        "OK",
    )


async def test_request_id_and_deadline_are_passed_on_through_two_hops(
    start: Callable[..., Any],
) -> None:
    last = QueryServicer()
    last_server = await start(registration(last))
    first = QueryServicer(onward=f"127.0.0.1:{last_server.port}")
    first_server = await start(registration(first))
    async with open_channel(f"127.0.0.1:{first_server.port}", SETTINGS) as channel:
        stub = query_grpc.QueryServiceStub(channel)
        with serving(Call("r-2", time.monotonic() + 20)):
            await stub.GetCollection(get("onward:x"), timeout=60)
    assert last.calls == ["x"]
    assert {call.request_id for call in (*first.seen, *last.seen)} == {"r-2"}
    # Of the 20 s and the 60 s that were set, the shorter; gRPC rounds a little.
    assert all(0 < call.seconds_left < 30 for call in (*first.seen, *last.seen))


async def test_only_unavailable_is_tried_again(stub: Any, servicer: QueryServicer) -> None:
    await stub.GetCollection(get("fails-once"))
    assert servicer.calls == ["fails-once"] * 2
    for reason in ("BUSY", "TIME_EXCEEDED", "INTERNAL"):
        servicer.calls.clear()
        with pytest.raises(grpc.RpcError):
            await stub.GetCollection(get(reason))
        assert servicer.calls == [reason]


async def test_tries_do_not_multiply_while_someone_behind_a_service_is_away(
    stub: Any, servicer: QueryServicer
) -> None:
    # Its error names a culprit, as those of stores and indexes do.
    with pytest.raises(grpc.RpcError):
        await stub.GetCollection(get("UNAVAILABLE"))
    assert servicer.calls == ["UNAVAILABLE"]


async def test_requests_as_long_as_an_inline_track_are_tried_again(
    stub: Any, servicer: QueryServicer
) -> None:
    request = query.IndexDescriptorsRequest(collection_id="x")
    request.source.key, request.source.sha256 = "audio/a/x.wav", SHA
    request.track.feature_names.append("mfcc0")
    request.track.frame_count = 262144
    request.track.sample_rate_hertz, request.track.hop_length_samples = 44100, 1024
    request.track.values = bytes(1 << 20)
    assert (await stub.IndexDescriptors(request)).point_count == 262144
    assert servicer.calls == ["index"] * 2


async def test_a_deadline_that_passes_stops_the_servicer(
    stub: Any, servicer: QueryServicer
) -> None:
    with pytest.raises(errors.TimeExceededError), remote_errors():
        await stub.GetCollection(get("waits"), timeout=0.2)
    await asyncio.wait_for(servicer.cancelled.wait(), 5)


@pytest.mark.parametrize("cancel", [False, True])
async def test_the_device_stops_when_the_caller_has_gone(
    stub: Any, servicer: QueryServicer, cancel: bool
) -> None:
    call = asyncio.ensure_future(stub.GetCollection(get("device"), timeout=0.2))
    if cancel:
        await until(lambda: bool(servicer.calls))
        call.cancel()
    stopped_by = await asyncio.wait_for(servicer.stopped_by, 5)
    assert isinstance(stopped_by, errors.CancelledError | errors.TimeExceededError)
    with pytest.raises((grpc.RpcError, asyncio.CancelledError)):
        await call
    await servicer.queue.drain()


async def test_a_call_that_the_client_cancels_stops_the_servicer(
    stub: Any, servicer: QueryServicer
) -> None:
    call = stub.GetCollection(get("waits"))
    waiting = asyncio.ensure_future(call)
    await asyncio.wait_for(servicer.entered.wait(), 5)
    call.cancel()
    await asyncio.wait_for(servicer.cancelled.wait(), 5)
    with pytest.raises(asyncio.CancelledError):
        await waiting
