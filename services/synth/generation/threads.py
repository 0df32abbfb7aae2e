"""Threads that share no work with each other: each computes its own piece, alone.

On a CPU PyTorch parts each operation between its threads, which wait for each other after every
one; where others are at work too, they wait long. Pieces of their own need no waiting, and are
computed alike on any number of threads, so a sound's bytes do not depend on the machine's cores.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier

import torch


@contextmanager
def lone_threads(device: torch.device) -> Iterator[ThreadPoolExecutor]:
    """As many threads as PyTorch may use, each for operations of one thread; one for a GPU."""
    usual = torch.get_num_threads()
    count = usual if device.type == "cpu" else 1
    with ThreadPoolExecutor(
        count, thread_name_prefix="synth", initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        started = Barrier(count)
        list(pool.map(lambda _: started.wait(), range(count)))
        # Threads elsewhere that first use PyTorch from now on take the number that was set last.
        torch.set_num_threads(usual)
        yield pool
