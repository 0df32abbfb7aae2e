"""What goes wrong in a call, and what the client is told of it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from demiurge.gateway.v1 import gateway_service_pb2 as gateway
from demiurge.gateway.v1 import gateway_service_pb2_grpc as gateway_grpc
from demiurge.query.v1 import query_service_pb2 as query
from demiurge.query.v1 import query_service_pb2_grpc as query_grpc
from google.rpc import error_details_pb2, status_pb2
from typing_extensions import override

from services import errors
from services.errors import DemiurgeError
from services.runtime.channels import open_blocking_channel, open_channel
from services.runtime.interceptors.in_flight import ELSEWHERE
from services.runtime.server import Registration
from services.runtime.status import DETAILS_KEY, remote_errors
from tests.contract.runtime.conftest import ERRORS, SETTINGS, SHA, QueryServicer, get, registration

PIPELINE = gateway.DESCRIPTOR.services_by_name["PipelineService"].full_name


class PipelineServicer(gateway_grpc.PipelineServiceServicer):
    """Streams."""

    def __init__(self) -> None:
        self.received = 0
        self.ended = asyncio.Event()

    @override
    async def WatchRun(
        self, request: gateway.WatchRunRequest, context: Any
    ) -> AsyncIterator[gateway.WatchRunResponse]:
        try:
            yield gateway.WatchRunResponse(run=gateway.Run(id=request.run_id))
            if request.run_id == "fails":
                raise errors.NotFoundError("gone", culprit="fails")
            while request.run_id == "endless":
                yield gateway.WatchRunResponse()
                await asyncio.sleep(0)
        finally:
            self.ended.set()

    @override
    async def UploadAudio(self, request_iterator: Any, context: Any) -> Any:
        async for _ in request_iterator:
            self.received += 1
        return gateway.UploadAudioResponse()


@pytest.mark.parametrize("reason", sorted(set(ERRORS) - {"UNAVAILABLE"}))
async def test_what_a_servicer_raises_is_what_a_client_catches(stub: Any, reason: str) -> None:
    with pytest.raises(DemiurgeError) as caught, remote_errors():
        await stub.GetCollection(get(reason))
    assert type(caught.value) is ERRORS[reason]
    assert caught.value.message == f"{reason} of zaunkönig.wav"
    assert caught.value.culprit == "zaunkönig.wav"


async def test_an_unforeseen_error_is_logged_but_not_told(
    log: Callable[[], list[dict[str, Any]]], stub: Any
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.GetCollection(get("bug"), metadata=[("x-request-id", "r-17")])
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "r-17" in caught.value.details()
    assert "secret formula" not in str(caught.value.trailing_metadata()) + caught.value.details()
    logged = next(line for line in log() if line["event"] == "unforeseen error")
    assert "the secret formula" in logged["exception"]
    assert logged["request_id"] == "r-17"


async def test_a_request_that_breaks_rules_never_reaches_the_servicer(
    stub: Any, servicer: QueryServicer
) -> None:
    request = query.MatchDescriptorsRequest(collection_id="x")
    request.track.feature_names.extend(["mfcc0", "mfcc0"])
    request.track.values = b""
    with pytest.raises(errors.InvalidInputError) as caught, remote_errors():
        await stub.MatchDescriptors(request)
    for field in ("track.feature_names", "track.sample_rate_hertz", "track.hop_length_samples"):
        assert field in caught.value.message
    assert caught.value.culprit == "track.feature_names"
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.GetCollection(get(""))
    assert servicer.calls == []
    status = status_pb2.Status.FromString(refused.value.trailing_metadata()[DETAILS_KEY])
    violations = error_details_pb2.BadRequest()
    assert any(detail.Unpack(violations) for detail in status.details)
    assert [violation.field for violation in violations.field_violations] == ["collection_id"]


async def test_streams_are_validated_message_by_message(start: Callable[..., Any]) -> None:
    servicer = PipelineServicer()
    server = await start(
        Registration(
            PIPELINE,
            lambda server: gateway_grpc.add_PipelineServiceServicer_to_server(servicer, server),
        )
    )

    async def upload() -> AsyncIterator[gateway.UploadAudioRequest]:
        header = gateway.UploadAudioHeader(database="birds", file_name="wren.wav", sha256=SHA)
        yield gateway.UploadAudioRequest(header=header)
        yield gateway.UploadAudioRequest(data=b"1")
        yield gateway.UploadAudioRequest()

    async with open_channel(f"127.0.0.1:{server.port}", SETTINGS) as channel:
        stub = gateway_grpc.PipelineServiceStub(channel)
        with pytest.raises(errors.InvalidInputError, match="part"), remote_errors():
            await stub.UploadAudio(upload())
        assert servicer.received == 2

        watching = stub.WatchRun(gateway.WatchRunRequest(run_id="fails"))
        assert (await watching.read()).run.id == "fails"
        with pytest.raises(errors.NotFoundError, match="gone"), remote_errors():
            await watching.read()
        with pytest.raises(errors.InvalidInputError, match="run_id"), remote_errors():
            await stub.WatchRun(gateway.WatchRunRequest(run_id="/")).read()

        servicer.ended.clear()
        watching = stub.WatchRun(gateway.WatchRunRequest(run_id="endless"))
        await watching.read()
        watching.cancel()
        await asyncio.wait_for(servicer.ended.wait(), 5)


async def test_errors_of_a_further_service_come_through(start: Callable[..., Any]) -> None:
    last = await start(registration(QueryServicer()))
    first = await start(registration(QueryServicer(onward=f"127.0.0.1:{last.port}")))
    async with open_channel(f"127.0.0.1:{first.port}", SETTINGS) as channel:
        with pytest.raises(errors.NotFoundError) as caught, remote_errors():
            await query_grpc.QueryServiceStub(channel).GetCollection(get("onward:NOT_FOUND"))
    assert caught.value.culprit == "zaunkönig.wav"


@pytest.mark.parametrize(
    ("wanted", "again"), [("UNAVAILABLE", True), ("UNAVAILABLE late", False), ("NOT_FOUND", False)]
)
async def test_envoy_alone_is_told_to_ask_again_where_somebody_was_not_there_at_all(
    start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, wanted: str, *, again: bool
) -> None:
    wanted, _, late = wanted.partition(" ")
    if late:
        monkeypatch.setattr("services.runtime.interceptors.errors.ABSENCE_SECONDS", 0.0)
    server = await start(registration(servicer := QueryServicer()))
    async with open_channel(f"127.0.0.1:{server.port}", SETTINGS) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await query_grpc.QueryServiceStub(channel).GetCollection(get(wanted))
    assert (ELSEWHERE in tuple(caught.value.trailing_metadata())) == again
    assert servicer.calls == [wanted]


def test_a_server_that_nobody_listens_at_is_unavailable() -> None:
    with (
        open_blocking_channel("127.0.0.1:1", SETTINGS) as channel,
        pytest.raises(errors.UnavailableError),
        remote_errors(),
    ):
        query_grpc.QueryServiceStub(channel).GetCollection(get("x"))
