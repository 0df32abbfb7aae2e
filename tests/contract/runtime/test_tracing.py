"""Traces through services to a real collector, and what becomes of calls where there is none."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from demiurge.query.v1 import query_service_pb2_grpc as query_grpc

from services.runtime import tracing
from services.runtime.call import Call, serving
from services.runtime.channels import open_channel
from services.runtime.metrics import Metrics
from services.runtime.server import Server
from services.runtime.settings import RuntimeSettings
from services.runtime.tracing import Tracing, open_tracing
from tests.contract.runtime.conftest import (
    QUERY,
    SETTINGS,
    QueryServicer,
    get,
    health,
    registration,
)
from tests.e2e.processes import free_port
from tests.servers.rotel import Rotel

METHOD = f"{QUERY}/GetCollection"
TRACE_ID, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CALL = Call("r-1", run_id="run-1", traceparent=f"00-{TRACE_ID}-{CALLER}-01")


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rotel]:
    with Rotel(tmp_path_factory.mktemp("rotel")) as running:
        yield running


@asynccontextmanager
async def two_services(front: Tracing, back: Tracing) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to a service that asks another one."""
    last = Server([registration(QueryServicer())], SETTINGS, Metrics(), tracing=back)
    await last.start()
    asks = QueryServicer(onward=f"127.0.0.1:{last.port}")
    first = Server([registration(asks)], SETTINGS, Metrics(), tracing=front)
    await first.start()
    async with open_channel(f"127.0.0.1:{first.port}", SETTINGS) as channel:
        yield channel
    await first.stop()
    await last.stop()


async def test_a_trace_goes_on_through_two_services_and_is_sent_when_they_stop(
    collector: Rotel, log: Callable[[], list[dict[str, Any]]]
) -> None:
    settings = RuntimeSettings(otlp_endpoint=collector.endpoint)
    front, back = open_tracing(settings, "front"), open_tracing(settings, "back")
    async with two_services(front, back) as channel:
        stub = query_grpc.QueryServiceStub(channel)
        with serving(CALL):
            await stub.GetCollection(get("onward:x"))
            with pytest.raises(grpc.RpcError):
                await stub.GetCollection(get("UNAVAILABLE"))
        await health(channel, "readiness")
    spans = await asyncio.to_thread(collector.spans, METHOD)
    assert {(span.name, span.kind, span.trace_id) for span in spans} == {
        (METHOD, "SPAN_KIND_SERVER", TRACE_ID)
    }
    (beyond,) = [span for span in spans if span.service == "demiurge-back"]
    asked = [span for span in spans if span.service == "demiurge-front"]
    assert {span.parent_id for span in asked} == {CALLER}
    # Tried again by the channel: a span a try.
    assert [span.failed for span in asked] == [False, *[True] * (len(asked) - 1)]
    assert beyond.parent_id == asked[0].id
    assert beyond.attributes["demiurge.run_id"] == "run-1"
    assert beyond.attributes["rpc.response.status_code"] == "OK"
    assert asked[-1].attributes["rpc.response.status_code"] == "UNAVAILABLE"
    lines = [line for line in log() if line["event"] == "call" and line["method"] == f"/{METHOD}"]
    assert len(lines) == len(spans)
    ids = {(line["request_id"], line["run_id"], line["trace_id"]) for line in lines}
    assert ids == {("r-1", "run-1", TRACE_ID)}


async def test_without_a_collector_the_ids_go_on_into_every_log_all_the_same(
    log: Callable[[], list[dict[str, Any]]],
) -> None:
    async with two_services(Tracing(), Tracing()) as channel:
        stub = query_grpc.QueryServiceStub(channel)
        with serving(CALL):
            await stub.GetCollection(get("onward:x"))
        with serving(Call("r-2", run_id="not an id", traceparent="00-of-mine-01")):
            await stub.GetCollection(get("onward:x"))
    lines = [line for line in log() if line["event"] == "call"]
    assert [line.get("run_id") for line in lines] == ["run-1", "run-1", None, None]
    assert [line.get("trace_id") for line in lines] == [TRACE_ID, TRACE_ID, None, None]


async def test_a_collector_that_is_away_fails_no_call_and_is_told_of_once(
    log: Callable[[], list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing, "EXPORT_SECONDS", 0.1)
    monkeypatch.setattr(tracing, "EXPORT_EVERY_SECONDS", 0.01)
    endpoint = f"http://127.0.0.1:{free_port()}"
    nowhere = open_tracing(RuntimeSettings(otlp_endpoint=endpoint), "front")

    def lost() -> list[dict[str, Any]]:
        return [line for line in log() if "collector" in line["event"]]

    async with two_services(nowhere, Tracing()) as channel:
        stub = query_grpc.QueryServiceStub(channel)
        for _ in range(5):
            await stub.GetCollection(get("onward:x"))
            await asyncio.sleep(0.3)
    assert [line["endpoint"] for line in lost()] == [endpoint]
    assert not [line for line in log() if line["level"] in {"error", "critical"}]


async def test_a_collector_that_hangs_holds_up_no_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tracing, "EXPORT_SECONDS", 600)
    monkeypatch.setattr(tracing, "FLUSH_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        hanging = open_tracing(RuntimeSettings(otlp_endpoint=endpoint), "front")
        async with asyncio.timeout(60), two_services(hanging, Tracing()) as channel:
            await query_grpc.QueryServiceStub(channel).GetCollection(get("onward:x"))
        # It was told of the call, and is still to answer.
        silent.settimeout(0)
        connection, _ = silent.accept()
        with connection:
            assert connection.recv(4) == b"POST"


def test_work_of_its_own_begins_a_trace_that_points_to_its_cause(collector: Rotel) -> None:
    told = open_tracing(RuntimeSettings(otlp_endpoint=collector.endpoint), "gateway")
    with (
        serving(Call("run-2", run_id="run-2")),
        told.span("run", {"demiurge.run_id": "run-2"}, linked_to=CALL.traceparent),
        pytest.raises(ZeroDivisionError),
        told.span("stage generate", {}),
    ):
        raise ZeroDivisionError("the secret recording secret.wav")
    told.close()
    by_name = {span.name: span for span in collector.spans("run", "stage generate")}
    run, stage = by_name["run"], by_name["stage generate"]
    assert run.trace_id == stage.trace_id != TRACE_ID
    assert (run.parent_id, run.links) == ("", [CALLER])
    assert stage.parent_id == run.id
    assert (stage.failed, stage.reason) == (True, "ZeroDivisionError")
