import asyncio
import threading
import time
from collections.abc import AsyncIterator

import pytest

from services.errors import BusyError, CancelledError, TimeExceededError, UnavailableError
from services.runtime.call import Call, current_call, serving
from services.runtime.device_queue import Checkpoint, DeviceQueue
from services.runtime.metrics import Metrics


class Gate:
    """Work that holds the device until it is told to go on."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.release = threading.Event()

    def __call__(self, checkpoint: Checkpoint) -> str:
        self.entered.set()
        self.release.wait(10)
        checkpoint()
        return "done"


@pytest.fixture
async def queue() -> AsyncIterator[DeviceQueue]:
    queue = DeviceQueue(2, metrics=Metrics().queue("device"))
    yield queue
    await queue.drain()


@pytest.fixture
def gate() -> Gate:
    return Gate()


async def entered(gate: Gate) -> None:
    assert await asyncio.to_thread(gate.entered.wait, 10)


async def test_work_runs_in_order_in_one_thread(queue: DeviceQueue) -> None:
    queue = DeviceQueue(20, metrics=Metrics().queue("device"))
    threads: list[int] = []
    order: list[int] = []

    def work(item: int) -> int:
        threads.append(threading.get_ident())
        order.append(item)
        return item

    answers = await asyncio.gather(
        *(queue.run(lambda _, item=item: work(item)) for item in range(20))
    )
    await queue.drain()
    assert answers == order == list(range(20))
    assert len(set(threads)) == 1
    assert threading.get_ident() not in threads


async def test_as_many_are_at_work_as_there_are_workers_and_as_many_wait_as_there_is_room() -> None:
    queue = DeviceQueue(1, workers=2, metrics=Metrics().queue("device"))
    gates = [Gate() for _ in range(3)]
    calls = [asyncio.ensure_future(queue.run(gate)) for gate in gates]
    await asyncio.gather(*map(entered, gates[:2]))

    with pytest.raises(BusyError, match="1 wait"):
        await queue.run(Gate())

    assert not gates[2].entered.is_set()
    for gate in gates:
        gate.release.set()
    assert await asyncio.gather(*calls) == ["done"] * 3
    await queue.drain()


async def test_errors_of_the_work_reach_the_caller(queue: DeviceQueue) -> None:
    def work(_: Checkpoint) -> None:
        raise TimeoutError("the work's own")

    with pytest.raises(TimeoutError, match="the work's own"):
        await queue.run(work, deadline=time.monotonic() + 60)


async def test_more_than_capacity_waiting_is_refused(queue: DeviceQueue, gate: Gate) -> None:
    running = asyncio.create_task(queue.run(gate))
    await entered(gate)
    waiting = [asyncio.create_task(queue.run(lambda _: "waited")) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(BusyError):
        await queue.run(lambda _: "too many")
    with pytest.raises(BusyError):
        queue.expect_room()
    gate.release.set()
    assert await running == "done"
    assert await asyncio.gather(*waiting) == ["waited"] * 2
    queue.expect_room()
    assert await queue.run(lambda _: "again") == "again"


async def test_work_whose_caller_left_is_never_launched_and_frees_its_place(
    queue: DeviceQueue, gate: Gate
) -> None:
    launched: list[str] = []
    running = asyncio.create_task(queue.run(gate))
    await entered(gate)
    waiting = [
        asyncio.create_task(queue.run(lambda _, name=name: launched.append(name))) for name in "ab"
    ]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.wait(waiting[:1])
    replaced = asyncio.create_task(queue.run(lambda _: launched.append("c")))
    await asyncio.sleep(0)
    gate.release.set()
    await asyncio.gather(running, waiting[1], replaced)
    assert launched == ["b", "c"]


async def test_the_checkpoint_stops_work_whose_caller_left(queue: DeviceQueue) -> None:
    entered, left, stopped = threading.Event(), threading.Event(), threading.Event()

    def work(checkpoint: Checkpoint) -> None:
        checkpoint()
        entered.set()
        left.wait(10)
        try:
            checkpoint()
        except CancelledError:
            stopped.set()
            raise

    task = asyncio.create_task(queue.run(work))
    assert await asyncio.to_thread(entered.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    left.set()
    assert await asyncio.to_thread(stopped.wait, 10)


async def test_a_deadline_that_passes_in_line_is_told_at_once(
    queue: DeviceQueue, gate: Gate
) -> None:
    launched: list[bool] = []
    running = asyncio.create_task(queue.run(gate))
    await entered(gate)
    with pytest.raises(TimeExceededError):
        await queue.run(lambda _: launched.append(True), deadline=time.monotonic() + 0.01)
    gate.release.set()
    await running
    await queue.run(lambda _: None)
    assert launched == []


async def test_the_deadline_of_the_current_call_counts(queue: DeviceQueue) -> None:
    with serving(Call("r", deadline=time.monotonic() - 1)), pytest.raises(TimeExceededError):
        await queue.run(lambda _: None)


async def test_work_sees_the_call_that_it_is_for(queue: DeviceQueue) -> None:
    with serving(Call("r7")) as call:
        assert await queue.run(lambda _: current_call()) == call
    assert current_call() is None


async def test_drain_finishes_what_was_taken_and_takes_nothing_new(gate: Gate) -> None:
    queue = DeviceQueue(2, metrics=Metrics().queue("device"))
    tasks = [asyncio.create_task(queue.run(gate)) for _ in range(2)]
    await entered(gate)
    draining = asyncio.create_task(queue.drain())
    await asyncio.sleep(0)
    with pytest.raises(UnavailableError):
        await queue.run(lambda _: None)
    assert not draining.done()
    gate.release.set()
    assert await asyncio.gather(*tasks) == ["done"] * 2
    await draining


async def test_a_queue_tells_who_waits_who_works_and_who_was_refused(gate: Gate) -> None:
    metrics = Metrics()
    queue = DeviceQueue(capacity=2, metrics=metrics.queue("device"))

    def told(name: str) -> float | None:
        return metrics.registry.get_sample_value(f"demiurge_queue_{name}", {"queue": "device"})

    working = asyncio.ensure_future(queue.run(gate))
    await entered(gate)
    leaving, staying = (asyncio.ensure_future(queue.run(lambda _: "done")) for _ in range(2))
    await asyncio.sleep(0)
    assert (told("running"), told("waiting"), told("capacity")) == (1, 2, 2)
    with pytest.raises(BusyError):
        await queue.run(gate)
    assert told("refused_total") == 1
    leaving.cancel()
    await asyncio.wait([leaving])
    assert told("waiting") == 1
    gate.release.set()
    assert [await working, await staying] == ["done", "done"]
    await queue.drain()
    assert (told("running"), told("waiting"), told("wait_seconds_count")) == (0, 0, 2)
