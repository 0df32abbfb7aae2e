import asyncio
import itertools

import pytest

from services.errors import InvalidInputError
from services.gateway.fan_out import fan_out


def ignored(completed: int, total: int) -> None:
    pass


async def test_answers_come_in_the_order_of_the_items_whatever_ends_first() -> None:
    async def work(item: int) -> int:
        await asyncio.sleep(0.001 * (5 - item))
        return item * item

    counted: list[tuple[int, int]] = []
    answers = await fan_out(
        range(5), work, concurrency=3, advance=lambda done, of: counted.append((done, of))
    )

    assert answers == [0, 1, 4, 9, 16]
    assert counted == [(done, 5) for done in range(6)]


async def test_never_more_at_once_than_allowed_and_as_many_as_allowed() -> None:
    running, most = 0, 0

    async def work(_: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1

    await fan_out(range(20), work, concurrency=4, advance=ignored)

    assert most == 4


async def test_nothing_to_do_is_done() -> None:
    async def work(_: int) -> int:
        raise AssertionError

    assert await fan_out([], work, concurrency=4, advance=ignored) == []


async def test_the_first_error_is_raised_with_its_cause_and_stops_the_others() -> None:
    begun, ended = itertools.count(), itertools.count()

    async def work(item: int) -> None:
        next(begun)
        await asyncio.sleep(0)
        if item == 1:
            raise InvalidInputError("one") from OSError("disk")
        await asyncio.sleep(60)
        next(ended)

    with pytest.raises(InvalidInputError, match="one") as caught:
        await fan_out(range(100), work, concurrency=3, advance=ignored)

    assert isinstance(caught.value.__cause__, OSError)
    assert (next(begun), next(ended)) == (3, 0)


async def test_a_cancelled_fan_out_is_cancelled_with_all_that_it_began() -> None:
    stopped = 0

    async def work(_: int) -> None:
        nonlocal stopped
        try:
            await asyncio.sleep(60)
        finally:
            stopped += 1

    task = asyncio.create_task(fan_out(range(9), work, concurrency=3, advance=ignored))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert stopped == 3
