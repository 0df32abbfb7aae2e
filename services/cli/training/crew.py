"""Several models trained at once, a process each, so that a laptop's processors share the work."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from types import FrameType

from services.cli.progress import Reporter
from services.cli.training.order import Order
from services.cli.training.workshop import Workshop, train
from services.errors import DemiurgeError

SECONDS_TO_STOP = 10.0


class Relay(Reporter):
    """What a child has to say, sent to its parent."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def say(self, text: str) -> None:
        """See Reporter."""
        self._connection.send(("say", (text,)))

    def update(self, name: str, completed: int, total: int, note: str = "") -> None:
        """See Reporter."""
        self._connection.send(("update", (name, completed, total, note)))


def train_all(orders: Sequence[Order], reporter: Reporter) -> dict[str, str]:
    """Version id of each order's model, by family.

    The first error, as `train` raises it, ends the other trainings and is raised.
    """
    # A forked child would inherit threads and locks of gRPC and torch.
    context = multiprocessing.get_context("spawn")
    threads = max(1, (os.cpu_count() or 1) // max(1, len(orders)))
    working, processes, trained = {}, [], {}
    try:
        for order in orders:
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_train, args=(order, threads, theirs), daemon=True)
            with _ctrl_c_ignored():
                process.start()
            theirs.close()
            working[ours] = order.family
            processes.append(process)
        while working:
            for connection in wait(list(working)):
                assert isinstance(connection, Connection)  # noqa: S101 - wait's type is wider
                family = working[connection]
                try:
                    kind, content = connection.recv()
                except EOFError:
                    raise DemiurgeError(
                        f"the training of the {family} broke off: it was killed, perhaps for want "
                        "of memory, or a defect is told above"
                    ) from None
                if kind == "trained":
                    trained[family] = content
                    del working[connection]
                elif kind == "failed":
                    raise content
                else:
                    getattr(reporter, kind)(*content)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(SECONDS_TO_STOP)
            process.kill()
            process.join()
    return trained


@contextmanager
def _ctrl_c_ignored() -> Iterator[None]:
    """Processes started meanwhile ignore Ctrl-C from their first moment: their parent ends them."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _train(order: Order, threads: int, connection: Connection) -> None:
    import torch

    # As an exception, so that what is half-written is removed.
    signal.signal(signal.SIGTERM, _exit)
    # Threads that outnumber processors wait for each other more than they work.
    torch.set_num_threads(threads)
    try:
        answer: tuple[str, object] = (
            "trained",
            train(order, Workshop.here(Relay(connection))).version_id,
        )
    except DemiurgeError as error:
        answer = "failed", error
    # From here on the process ends by itself, and its parent's SIGTERM would only interrupt that.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    connection.send(answer)


def _exit(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - what signal calls
    sys.exit(128 + number)
