"""The runtime against a real server: errors, ids, deadlines, retries, drain, health, security."""

import asyncio
import io
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import grpc
import pytest
from demiurge.gateway.v1 import gateway_service_pb2 as gateway
from demiurge.gateway.v1 import gateway_service_pb2_grpc as gateway_grpc
from demiurge.query.v1 import query_service_pb2 as query
from demiurge.query.v1 import query_service_pb2_grpc as query_grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from typing_extensions import override

from services import errors
from services.errors import DemiurgeError
from services.runtime.call import Call, current_call, serving
from services.runtime.channels import open_blocking_channel, open_channel
from services.runtime.device_queue import Checkpoint, DeviceQueue
from services.runtime.embedding import embedded, embedded_settings
from services.runtime.logs import configure_logging
from services.runtime.security import server_credentials
from services.runtime.server import Registration, Server
from services.runtime.settings import RuntimeSettings
from services.runtime.status import DETAILS_KEY, error_from_rpc, remote_errors

QUERY = query.DESCRIPTOR.services_by_name["QueryService"].full_name
PIPELINE = gateway.DESCRIPTOR.services_by_name["PipelineService"].full_name
ERRORS = {
    kind.reason: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, DemiurgeError)
}
SETTINGS = RuntimeSettings(port=0, drain_seconds=5)
SHA = "0" * 64


class QueryServicer(query_grpc.QueryServiceServicer):
    """Does what the collection's id says."""

    def __init__(self, onward: str = "") -> None:
        self.calls: list[str] = []
        self.seen: list[Call | None] = []
        self.entered = asyncio.Event()
        self.release = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.onward = onward
        self.queue = DeviceQueue(capacity=1)
        self.stopped_by: asyncio.Future[DemiurgeError] = asyncio.Future()

    def endless(self, checkpoint: Checkpoint) -> None:
        """Work that only its checkpoint ends; for a call that is no longer there."""
        loop = self.stopped_by.get_loop()
        try:
            while True:
                checkpoint()
                time.sleep(0.001)
        except DemiurgeError as error:
            loop.call_soon_threadsafe(self.stopped_by.set_result, error)
            raise

    @override
    async def GetCollection(
        self, request: query.GetCollectionRequest, context: Any
    ) -> query.GetCollectionResponse:
        wanted = request.collection_id
        self.calls.append(wanted)
        self.seen.append(current_call())
        if wanted in ERRORS:
            raise ERRORS[wanted](f"{wanted} of zaunkönig.wav", culprit="zaunkönig.wav")
        if wanted == "bug":
            raise ZeroDivisionError("the secret formula")
        if wanted == "fails-once" and self.calls.count(wanted) == 1:
            raise errors.UnavailableError("not yet")
        if wanted == "waits":
            self.entered.set()
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        if wanted == "device":
            await self.queue.run(self.endless)
        if wanted.startswith("onward:"):
            async with open_channel(self.onward, SETTINGS) as channel:
                return await query_grpc.QueryServiceStub(channel).GetCollection(
                    get(wanted.removeprefix("onward:"))
                )
        return query.GetCollectionResponse(collection=query.Collection(id=wanted))

    @override
    async def IndexDescriptors(self, request: Any, context: Any) -> Any:
        self.calls.append("index")
        if self.calls.count("index") == 1:
            raise errors.UnavailableError("not yet")
        return query.IndexDescriptorsResponse(point_count=request.track.frame_count)


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


def registration(servicer: QueryServicer, **hooks: Any) -> Registration:
    return Registration(
        QUERY,
        lambda server: query_grpc.add_QueryServiceServicer_to_server(servicer, server),
        **hooks,
    )


@pytest.fixture
async def start() -> AsyncIterator[Callable[..., Any]]:
    servers: list[Server] = []

    async def start(*registrations: Registration, settings: RuntimeSettings = SETTINGS) -> Server:
        server = Server(registrations, settings)
        await server.start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        await server.stop()


@pytest.fixture
async def servicer() -> QueryServicer:
    return QueryServicer()


@pytest.fixture
async def server(start: Callable[..., Any], servicer: QueryServicer) -> Server:
    return await start(registration(servicer))


@pytest.fixture
async def channel(server: Server) -> AsyncIterator[grpc.aio.Channel]:
    async with open_channel(f"127.0.0.1:{server.port}", SETTINGS) as channel:
        yield channel


@pytest.fixture
def stub(channel: grpc.aio.Channel) -> Any:
    return query_grpc.QueryServiceStub(channel)


@pytest.fixture
def log() -> Iterator[Callable[[], list[dict[str, Any]]]]:
    root = logging.getLogger()
    before = (root.handlers, root.level)
    stream = io.StringIO()
    configure_logging(RuntimeSettings(log_level="debug"), stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.handlers, root.level = before


def get(collection: str) -> query.GetCollectionRequest:
    return query.GetCollectionRequest(collection_id=collection)


async def until(holds: Callable[[], bool]) -> None:
    """Gives the loop its turns until a condition without an event of its own holds."""
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0)


async def health(channel: grpc.aio.Channel, service: str) -> str:
    answer = await health_pb2_grpc.HealthStub(channel).Check(
        health_pb2.HealthCheckRequest(service=service)
    )
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))


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
    assert all(0 < call.seconds_left <= 20 for call in (*first.seen, *last.seen))


async def test_errors_of_a_further_service_come_through(start: Callable[..., Any]) -> None:
    last = await start(registration(QueryServicer()))
    first = await start(registration(QueryServicer(onward=f"127.0.0.1:{last.port}")))
    async with open_channel(f"127.0.0.1:{first.port}", SETTINGS) as channel:
        with pytest.raises(errors.NotFoundError) as caught, remote_errors():
            await query_grpc.QueryServiceStub(channel).GetCollection(get("onward:NOT_FOUND"))
    assert caught.value.culprit == "zaunkönig.wav"


async def test_only_unavailable_is_tried_again(stub: Any, servicer: QueryServicer) -> None:
    await stub.GetCollection(get("fails-once"))
    assert servicer.calls == ["fails-once"] * 2
    for reason in ("BUSY", "TIME_EXCEEDED", "INTERNAL"):
        servicer.calls.clear()
        with pytest.raises(grpc.RpcError):
            await stub.GetCollection(get(reason))
        assert servicer.calls == [reason]


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


async def test_a_stop_finishes_what_is_in_flight_and_refuses_what_is_new(
    server: Server, servicer: QueryServicer, channel: grpc.aio.Channel, stub: Any
) -> None:
    in_flight = asyncio.ensure_future(stub.GetCollection(get("waits")))
    await asyncio.wait_for(servicer.entered.wait(), 5)
    stopping = asyncio.create_task(server.stop())
    watching = health_pb2_grpc.HealthStub(channel).Watch(
        health_pb2.HealthCheckRequest(service="readiness")
    )
    while (await watching.read()).status == health_pb2.HealthCheckResponse.SERVING:
        pass
    assert await health(channel, QUERY) == "NOT_SERVING"
    assert await health(channel, "liveness") == await health(channel, "") == "SERVING"
    with pytest.raises(errors.UnavailableError, match="stopping"), remote_errors():
        await stub.GetCollection(get("x"))
    assert not stopping.done()
    servicer.release.set()
    assert (await in_flight).collection.id == "waits"
    await asyncio.wait_for(stopping, 5)
    assert servicer.calls == ["waits"]


async def test_a_call_that_outlasts_the_drain_is_cut_off(start: Callable[..., Any]) -> None:
    servicer = QueryServicer()
    shut_down: list[bool] = []

    async def note() -> None:
        shut_down.append(servicer.cancelled.is_set())

    settings = RuntimeSettings(port=0, drain_seconds=0.1)
    server = await start(registration(servicer, shut_down=note), settings=settings)
    async with open_channel(f"127.0.0.1:{server.port}", SETTINGS) as channel:
        stub = query_grpc.QueryServiceStub(channel)
        in_flight = asyncio.ensure_future(stub.GetCollection(get("waits")))
        await asyncio.wait_for(servicer.entered.wait(), 5)
        await asyncio.wait_for(server.stop(), 5)
        await asyncio.wait_for(servicer.cancelled.wait(), 5)
        with pytest.raises(grpc.RpcError):
            await in_flight
    assert len(shut_down) == 1


async def test_a_server_that_warms_up_is_alive_but_not_ready() -> None:
    warm = asyncio.Event()

    async def warm_up() -> None:
        await warm.wait()

    server = Server([registration(QueryServicer(), warm_up=warm_up)], SETTINGS)
    starting = asyncio.create_task(server.start())
    await until(lambda: bool(server.port))
    async with open_channel(f"127.0.0.1:{server.port}", SETTINGS) as channel:
        assert await health(channel, "") == "SERVING"
        assert await health(channel, "readiness") == await health(channel, QUERY) == "NOT_SERVING"
        warm.set()
        await starting
        assert await health(channel, "readiness") == await health(channel, QUERY) == "SERVING"
    await server.stop()


async def test_a_warm_up_that_fails_ends_the_start() -> None:
    async def warm_up() -> None:
        raise errors.NotFoundError("no model")

    server = Server([registration(QueryServicer(), warm_up=warm_up)], SETTINGS)
    with pytest.raises(errors.NotFoundError):
        await server.start()


async def test_a_taken_port_is_refused_by_variable(server: Server) -> None:
    with pytest.raises(errors.ConfigurationError, match="DEMIURGE_PORT"):
        await Server([], RuntimeSettings(port=server.port)).start()


@pytest.mark.parametrize("reflection", [False, True])
async def test_the_contract_is_told_only_where_asked_for(
    start: Callable[..., Any], reflection: bool
) -> None:
    settings = RuntimeSettings(port=0, reflection=reflection)
    server = await start(registration(QueryServicer()), settings=settings)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    async with open_channel(f"127.0.0.1:{server.port}", SETTINGS) as channel:
        call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
            iter([request])
        )
        if reflection:
            listed = (await call.read()).list_services_response.service
            assert QUERY in {service.name for service in listed}
        else:
            with pytest.raises(grpc.aio.AioRpcError, match="UNIMPLEMENTED"):
                await call.read()


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.0.2.1", "myhost"])  # noqa: S104
async def test_beyond_loopback_it_takes_tls_and_token_or_permission(address: str) -> None:
    with pytest.raises(errors.ConfigurationError, match="DEMIURGE_TLS_CERTIFICATE") as caught:
        await Server([], RuntimeSettings(bind_address=address, port=0)).start()
    assert caught.value.culprit == "DEMIURGE_BIND_ADDRESS"


async def test_permission_to_bind_anywhere_is_enough() -> None:
    settings = RuntimeSettings(bind_address="0.0.0.0", port=0, allow_insecure_bind=True)  # noqa: S104
    server = Server([], settings)
    await server.start()
    assert server.port
    await server.stop()


async def test_the_token_is_asked_of_all_but_probes_and_never_logged(
    log: Callable[[], list[dict[str, Any]]], start: Callable[..., Any], tmp_path: Path
) -> None:
    token, wrong = tmp_path / "token", tmp_path / "wrong"
    token.write_text("s3cr3t\n")
    wrong.write_text("guess")
    guarded = RuntimeSettings(port=0, token_file=token)
    server = await start(registration(QueryServicer()), settings=guarded)
    address = f"127.0.0.1:{server.port}"
    for settings in (SETTINGS, RuntimeSettings(token_file=wrong)):
        async with open_channel(address, settings) as channel:
            with pytest.raises(errors.UnauthenticatedError), remote_errors():
                await query_grpc.QueryServiceStub(channel).GetCollection(get("x"))
            assert await health(channel, "readiness") == "SERVING"
    async with open_channel(address, guarded) as channel:
        await query_grpc.QueryServiceStub(channel).GetCollection(get("x"))
    assert "s3cr3t" not in json.dumps(log())
    assert any(line.get("code") == "UNAUTHENTICATED" for line in log())
    with pytest.raises(errors.ConfigurationError, match="DEMIURGE_TLS_CA"):
        open_channel("example.org:443", guarded)


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")
    new_key = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl(folder, *new_key, "-x509", "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.pem")
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1")
    openssl(folder, *new_key, "-subj", "/CN=localhost", "-keyout", "own.key", "-out", "own.csr")
    openssl(
        folder,
        *("x509", "-req", "-in", "own.csr", "-CA", "ca.pem", "-CAkey", "ca.key"),
        *("-CAcreateserial", "-extfile", "names", "-out", "own.pem"),
    )
    return folder


async def test_tls_protects_and_mutual_tls_asks_for_a_certificate(
    start: Callable[..., Any], certificates: Path
) -> None:
    pair = {
        "tls_certificate": certificates / "own.pem",
        "tls_key": certificates / "own.key",
    }
    trusting = RuntimeSettings(tls_ca=certificates / "ca.pem")
    both = RuntimeSettings(port=0, tls_ca=certificates / "ca.pem", **pair)
    one_way = await start(registration(QueryServicer()), settings=RuntimeSettings(port=0, **pair))
    mutual = await start(registration(QueryServicer()), settings=both)

    async def ask(server: Server, settings: RuntimeSettings) -> None:
        async with open_channel(f"localhost:{server.port}", settings) as channel:
            with remote_errors():
                await query_grpc.QueryServiceStub(channel).GetCollection(get("x"))

    await ask(one_way, trusting)
    await ask(mutual, both)
    for server, settings in ((one_way, SETTINGS), (mutual, trusting)):
        with pytest.raises(errors.UnavailableError):
            await ask(server, settings)


def open_to_localhost(settings: RuntimeSettings) -> None:
    open_blocking_channel("localhost:1", settings).close()


@pytest.mark.parametrize(
    ("field", "content"),
    [("tls_certificate", b"no pem"), ("tls_key", None), ("token_file", b" \n"), ("tls_ca", None)],
)
def test_files_that_cannot_be_used_are_refused_by_variable(
    tmp_path: Path, field: str, content: bytes | None
) -> None:
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    settings = RuntimeSettings(**{field: path})
    use = server_credentials if field in {"tls_certificate", "tls_key"} else open_to_localhost
    with pytest.raises(errors.ConfigurationError) as caught:
        use(settings)
    assert caught.value.culprit == f"DEMIURGE_{field.upper()}"


def test_an_embedded_server_answers_a_blocking_channel() -> None:
    servicers: list[QueryServicer] = []

    def build() -> list[Registration]:
        servicers.append(QueryServicer())
        return [registration(servicers[0])]

    with (
        embedded(build, embedded_settings(SETTINGS)) as server,
        open_blocking_channel(f"127.0.0.1:{server.port}", SETTINGS) as channel,
    ):
        stub = query_grpc.QueryServiceStub(channel)
        with serving(Call("r-9", time.monotonic() + 30)):
            assert stub.GetCollection(get("fails-once")).collection.id == "fails-once"
        with pytest.raises(grpc.RpcError) as caught:
            stub.GetCollection(get("NOT_FOUND"))
        error = error_from_rpc(caught.value)
    assert type(error) is errors.NotFoundError
    assert error.culprit == "zaunkönig.wav"
    assert [call.request_id for call in servicers[0].seen[:2]] == ["r-9"] * 2
    assert 0 < servicers[0].seen[0].seconds_left <= 30


def test_an_embedded_service_calls_its_neighbours_on_the_same_port() -> None:
    servicers: list[QueryServicer] = []

    def build() -> list[Registration]:
        servicers.append(QueryServicer())
        return [registration(servicers[0])]

    with (
        embedded(build, embedded_settings(SETTINGS)) as server,
        open_blocking_channel(f"127.0.0.1:{server.port}", SETTINGS) as channel,
    ):
        servicers[0].onward = f"127.0.0.1:{server.port}"
        stub = query_grpc.QueryServiceStub(channel)
        for _ in range(20):
            assert stub.GetCollection(get("onward:x")).collection.id == "x"
    assert servicers[0].calls == ["onward:x", "x"] * 20


def test_what_an_embedded_start_raises_is_raised_here() -> None:
    def build() -> list[Registration]:
        raise errors.ConfigurationError("no")

    with pytest.raises(errors.ConfigurationError), embedded(build, SETTINGS):
        pass


def test_a_server_that_nobody_listens_at_is_unavailable() -> None:
    with (
        open_blocking_channel("127.0.0.1:1", SETTINGS) as channel,
        pytest.raises(errors.UnavailableError),
        remote_errors(),
    ):
        query_grpc.QueryServiceStub(channel).GetCollection(get("x"))


PROGRAM = """
import asyncio
from demiurge.query.v1 import query_service_pb2, query_service_pb2_grpc
from services.runtime.logs import configure_logging
from services.runtime.security import server_credentials
from services.runtime.server import Registration, serve
from services.runtime.settings import RuntimeSettings

class Slow(query_service_pb2_grpc.QueryServiceServicer):
    async def GetCollection(self, request, context):
        print("entered", flush=True)
        await asyncio.sleep(0.5)
        return query_service_pb2.GetCollectionResponse()

async def warm_up():
    print("warming up", flush=True)
    await asyncio.sleep(WARM_UP_SECONDS)

settings = RuntimeSettings(port=0)
configure_logging(settings)
asyncio.run(serve([Registration("q", lambda server:
    query_service_pb2_grpc.add_QueryServiceServicer_to_server(Slow(), server), warm_up)], settings))
print("stopped", flush=True)
"""


@contextmanager
def program(warm_up_seconds: float) -> Iterator[tuple[subprocess.Popen[str], IO[str], IO[str]]]:
    """A server in a process of its own, warming up, with its stdout and stderr."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM.replace("WARM_UP_SECONDS", str(warm_up_seconds))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": ":".join(sys.path)},
    ) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline() == "warming up\n"
        yield process, process.stdout, process.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_call_in_flight_finish(number: signal.Signals) -> None:
    with program(0) as (process, stdout, stderr):
        port = json.loads(stderr.readline())["port"]
        with open_blocking_channel(f"127.0.0.1:{port}", SETTINGS) as channel:
            answer = query_grpc.QueryServiceStub(channel).GetCollection.future(get("x"))
            assert stdout.readline() == "entered\n"
            process.send_signal(number)
            assert answer.result(timeout=10) == query.GetCollectionResponse()
        assert process.wait(10) == 0
        assert stdout.read() == "stopped\n"


def test_a_signal_while_warming_up_ends_at_once() -> None:
    with program(600) as (process, stdout, _):
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert stdout.read() == "stopped\n"
