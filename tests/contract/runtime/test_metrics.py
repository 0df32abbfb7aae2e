"""What /metrics tells of calls and queues, and that it harms neither."""

import asyncio
import time
import urllib.request
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from services import errors
from services.runtime.channels import open_channel
from services.runtime.metrics import Metrics
from services.runtime.server import Server
from services.runtime.settings import RuntimeSettings
from tests.contract.runtime.conftest import (
    QUERY,
    SETTINGS,
    QueryServicer,
    get,
    health,
    registration,
    until,
)

METHOD = f"{QUERY}/GetCollection"
WATCHED = RuntimeSettings(port=0, metrics_port=0, drain_seconds=5)


async def scraped(server: Server) -> dict[str, float]:
    """Samples by name and labels, as Prometheus would hold them."""
    url = f"http://127.0.0.1:{server.metrics_port}/metrics"
    text = await asyncio.to_thread(lambda: urllib.request.urlopen(url).read().decode())
    return {
        sample.name + "".join(f" {value}" for _, value in sorted(sample.labels.items())): (
            sample.value
        )
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
async def server(start: Callable[..., Any], servicer: QueryServicer) -> Server:
    return await start(registration(servicer), settings=WATCHED)


@pytest.fixture
async def channel(server: Server) -> AsyncIterator[grpc.aio.Channel]:
    async with open_channel(f"127.0.0.1:{server.port}", SETTINGS) as channel:
        yield channel


async def test_calls_are_counted_by_method_and_final_code(
    server: Server, servicer: QueryServicer, channel: grpc.aio.Channel, stub: Any
) -> None:
    await stub.GetCollection(get("x"))
    await stub.GetCollection(get("y"))
    for wanted in ("NOT_FOUND", "bug", ""):
        with pytest.raises(grpc.RpcError):
            await stub.GetCollection(get(wanted))
    await health(channel, "readiness")
    left = asyncio.ensure_future(stub.GetCollection(get("waits")))
    await servicer.entered.wait()
    during = await scraped(server)
    assert during[f"demiurge_requests_in_flight {METHOD}"] == 1
    left.cancel()
    await servicer.cancelled.wait()
    after = await scraped(server)
    codes = {
        name.split()[1]: count
        for name, count in after.items()
        if name.startswith("demiurge_requests_total")
    }
    assert codes == {"OK": 2, "NOT_FOUND": 1, "INTERNAL": 1, "INVALID_ARGUMENT": 1, "CANCELLED": 1}
    assert after[f"demiurge_request_duration_seconds_count {METHOD}"] == 6
    assert after[f"demiurge_requests_in_flight {METHOD}"] == 0


async def test_methods_that_there_are_not_count_as_one(
    server: Server, channel: grpc.aio.Channel
) -> None:
    for number in range(3):
        unknown = channel.unary_unary(f"/of.my.Own/Invention{number}")
        with pytest.raises(grpc.aio.AioRpcError, match="UNIMPLEMENTED"):
            await unknown(b"")
    seen = await scraped(server)
    assert seen["demiurge_requests_total UNIMPLEMENTED unknown"] == 3
    assert not [name for name in seen if "Invention" in name]


async def test_a_loop_that_hangs_is_not_ready(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.runtime.server.LOOP_SECONDS", 0.1)
    # Held up until the answer is there, as by work that belongs into a thread.
    scrape = asyncio.create_task(scraped(server))
    await asyncio.sleep(0)
    time.sleep(1)  # noqa: ASYNC251
    assert (await scrape)["demiurge_ready"] == 0
    assert (await scraped(server))["demiurge_ready"] == 1


async def test_ready_only_between_warming_up_and_draining() -> None:
    warm, end = asyncio.Event(), asyncio.Event()

    async def warm_up() -> None:
        await warm.wait()

    async def shut_down() -> None:
        await end.wait()

    hooks = {"warm_up": warm_up, "shut_down": shut_down}
    server = Server([registration(QueryServicer(), **hooks)], WATCHED, Metrics())
    starting = asyncio.create_task(server.start())
    await until(lambda: bool(server.metrics_port))
    assert (await scraped(server))["demiurge_ready"] == 0
    warm.set()
    await starting
    assert (await scraped(server))["demiurge_ready"] == 1
    stopping = asyncio.create_task(server.stop())
    await asyncio.sleep(0)
    assert (await scraped(server))["demiurge_ready"] == 0
    end.set()
    await stopping
    with pytest.raises(OSError, match="refused"):
        await scraped(server)


async def test_a_taken_metrics_port_is_refused_by_variable(server: Server) -> None:
    settings = RuntimeSettings(port=0, metrics_port=server.port)
    with pytest.raises(errors.ConfigurationError, match="DEMIURGE_METRICS_PORT"):
        await Server([], settings, Metrics()).start()


async def test_a_device_that_cannot_be_read_takes_no_other_metric_with_it(
    start: Callable[..., Any],
) -> None:
    metrics = Metrics()

    def lost() -> dict[tuple[str, str], float]:
        raise RuntimeError("the GPU has fallen off the bus")

    metrics.watch_device(lost)
    metrics.watch_device(lambda: {("cuda:0", "total"): 80.0})
    server = Server([], WATCHED, metrics)
    await server.start()
    seen = await scraped(server)
    await server.stop()
    assert seen["demiurge_device_memory_bytes cuda:0 total"] == 80
    assert seen["demiurge_build_info 0.1.0"] == 1


async def test_room_on_a_disk_is_read_when_scraped_and_a_folder_that_has_gone_fails_nothing(
    tmp_path: Path,
) -> None:
    metrics = Metrics()
    (tmp_path / "there").mkdir()
    for name in ("there", "gone"):
        metrics.watch_disk(tmp_path / name)
    server = Server([], WATCHED, metrics)
    await server.start()
    seen = await scraped(server)
    assert seen[f"demiurge_disk_free_bytes {tmp_path / 'there'}"] > 0
    (tmp_path / "there").rmdir()
    later = await scraped(server)
    await server.stop()
    assert not [name for name in [*later] if name.startswith("demiurge_disk_free_bytes")]
    assert later["demiurge_build_info 0.1.0"] == 1
