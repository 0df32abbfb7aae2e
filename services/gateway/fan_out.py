"""Fan-out: one call an item, a bounded number of them at once."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from services.gateway.context import Advance

Item = TypeVar("Item")
Answer = TypeVar("Answer")


async def fan_out(
    items: Sequence[Item],
    work: Callable[[Item], Awaitable[Answer]],
    *,
    concurrency: int,
    advance: Advance,
) -> list[Answer]:
    """The answers of `work`, in the order of `items`; `advance(done, all)` after each.

    The first error cancels what is under way and is raised.
    """
    answers: dict[int, Answer] = {}
    waiting = iter(enumerate(items))
    advance(0, len(items))

    async def worker() -> None:
        for index, item in waiting:
            answers[index] = await work(item)
            advance(len(answers), len(items))

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(concurrency, len(items))):
                group.create_task(worker())
    except ExceptionGroup as failures:
        first = failures.exceptions[0]
        raise first from first.__cause__
    return [answers[index] for index in range(len(items))]
