"""Several processes on this machine, as torchrun would start them, for tests."""

import multiprocessing
import os
import socket
from collections.abc import Callable
from typing import Any

import torch

from services.learning.world import World, joined


def together(size: int, work: Callable[[World], Any]) -> list[Any]:
    """What `work`, a function of a module, returns in each of `size` processes, by rank."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    with context.Pool(size) as pool:
        return pool.starmap(_work, [(work, rank, size, port) for rank in range(size)], chunksize=1)


def _work(work: Callable[[World], Any], rank: int, size: int, port: int) -> Any:
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    with joined() as world:
        return work(world)
