"""Several models trained at once, a process each, so that a laptop's processors share the work."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import Any

from services.cli.progress import Reporter
from services.cli.training.begin import train
from services.cli.training.order import Order
from services.cli.training.sitting import Workshop
from services.errors import DemiurgeError

SECONDS_TO_STOP = 30.0


class Relay(Reporter):
    """What a child has to say, sent to its parent; without one, the child is told to stop."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def say(self, text: str) -> None:
        """See Reporter."""
        self._send("say", (text,))

    def update(self, name: str, completed: int, total: int, note: str = "") -> None:
        """See Reporter."""
        self._send("update", (name, completed, total, note))

    def _send(self, kind: str, content: tuple[object, ...]) -> None:
        try:
            self._connection.send((kind, content))
        except BrokenPipeError:
            os.kill(os.getpid(), signal.SIGTERM)


def train_all(orders: Sequence[Order], reporter: Reporter) -> dict[str, str]:
    """Version id of each order's model, by family.

    The first error, as `train` raises it, ends the other trainings and is raised. Trainings that
    are ended store how far they are, and the same orders go on from there.
    """
    # A forked child would inherit threads and locks of gRPC and torch.
    context = multiprocessing.get_context("spawn")
    threads = max(1, (os.cpu_count() or 1) // max(1, len(orders)))
    working: dict[Connection, str] = {}
    processes, trained = [], {}
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
            for connection, family, kind, content in _heard(working, reporter):
                if kind == "trained":
                    trained[family] = content
                    del working[connection]
                elif kind == "failed":
                    raise content
                else:
                    raise DemiurgeError(
                        f"the training of the {family} broke off: it was killed, perhaps for want "
                        "of memory, or a defect is told above"
                    )
    finally:
        for process in processes:
            process.terminate()
        end = time.monotonic() + SECONDS_TO_STOP
        # They have something to say until the end, and would wait for it to be heard.
        while working and time.monotonic() < end:
            for connection, *_ in _heard(working, reporter, end - time.monotonic()):
                working.pop(connection)
        for process in processes:
            process.join(max(end - time.monotonic(), 0.1))
            process.kill()
            process.join()
    return trained


def _heard(
    working: Mapping[Connection, str], reporter: Reporter, seconds: float | None = None
) -> Iterator[tuple[Connection, str, str, Any]]:
    """Passes on what is reported, and yields what else comes: its connection, family and content.

    The kind is "" for a child that has ended without a word.
    """
    for connection in wait(list(working), seconds):
        assert isinstance(connection, Connection)  # noqa: S101 - wait's type is wider
        try:
            kind, content = connection.recv()
        except EOFError:
            kind, content = "", None
        if kind in {"say", "update"}:
            getattr(reporter, kind)(*content)
        else:
            yield connection, working[connection], kind, content


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
