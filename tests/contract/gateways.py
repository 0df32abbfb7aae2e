"""Gateways of their own over the store of a stack, and who stands between them and its services."""

import socket
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from services.cli.composition import Ground, build
from services.cli.connection import client_of
from services.errors import DemiurgeError
from services.runtime.channels import open_blocking_channel
from services.runtime.embedding import embedded, embedded_settings
from services.runtime.metrics import Metrics
from services.runtime.object_store.folder import FolderStore
from services.runtime.settings import NOUNS, RuntimeSettings
from services.runtime.status import DETAILS_KEY, code_of, status_of
from tests.conftest import Stack

PEERS = tuple(noun for noun in NOUNS if noun != "gateway")
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class Between(grpc.GenericRpcHandler):
    """Passes calls on to the real services, holds back their answers, or refuses them."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address, UNLIMITED)
        self.held = ""
        """The method whose answers are held back."""
        self.refused: dict[str, DemiurgeError] = {}
        self.asked: list[str] = []
        self.answered = threading.Event()
        """The real service has done what is held back."""
        self.released = threading.Event()

    def hold(self, method: str) -> None:
        self.held = method
        self.answered.clear()
        self.released.clear()

    def release(self) -> None:
        self.held = ""
        self.released.set()

    def close(self) -> None:
        self.released.set()
        self._channel.close()

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            return self._answer(details.method, request, context)

        return grpc.unary_unary_rpc_method_handler(answer)

    def _answer(self, path: str, request: bytes, context: grpc.ServicerContext) -> bytes:
        method = path.rpartition("/")[2]
        self.asked.append(method)
        if method in self.refused:
            _abort(context, self.refused[method])
        call = self._channel.unary_unary(path).future(request)
        context.add_callback(call.cancel)
        try:
            response: bytes = call.result()
        except grpc.RpcError:
            context.set_trailing_metadata(call.trailing_metadata() or ())
            context.abort(call.code(), call.details() or "")
        if method == self.held:
            self.answered.set()
            while context.is_active() and not self.released.wait(0.02):
                pass
        return response


def _abort(context: grpc.ServicerContext, error: DemiurgeError) -> None:
    status = status_of(error)
    context.set_trailing_metadata(((DETAILS_KEY, status.SerializeToString()),))
    context.abort(code_of(error), status.message)


@contextmanager
def served_between(between: Between, port: int = 0) -> Iterator[int]:
    """Serves at a port of 127.0.0.1, which must be free by now."""
    server = grpc.server(
        futures.ThreadPoolExecutor(16), [between], options=[*UNLIMITED, ("grpc.so_reuseport", 0)]
    )
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield bound
    finally:
        server.stop(0).wait()


@contextmanager
def gateway(
    stack: Stack, address: str = "", *, port: int = 0, lasting: bool = False, **settings: object
) -> Iterator[Stack]:
    """One more gateway over the store of `stack`, whose peers are at `address`, or its own."""
    addresses = {f"{noun}_address": address or stack.address for noun in PEERS}
    runtime = embedded_settings(RuntimeSettings(store=str(stack.folder / "store"), **addresses))
    runtime = runtime.model_copy(update={"port": port})
    ground = Ground(runtime, FolderStore(stack.folder / "store"), Metrics(), lasting=lasting)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(f"DEMIURGE_GATEWAY_{name}".upper(), str(value))
        with (
            embedded(lambda: [build("gateway", ground)], runtime, ground.metrics) as server,
            open_blocking_channel(f"127.0.0.1:{server.port}", runtime) as channel,
        ):
            client = client_of(dict.fromkeys(NOUNS, channel))
            yield Stack(client, stack.store, stack.folder, f"127.0.0.1:{server.port}")


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def keys_of(stack: Stack, run_id: str) -> list[str]:
    """What the store has of a run."""
    return [key for root in ("runs", "renders") for key in stack.store.keys(f"{root}/{run_id}/")]


def settled(stack: Stack) -> dict[str, int]:
    """The store's files, which must not change for a while."""
    before = stack.files()
    time.sleep(0.5)
    assert stack.files() == before
    return before
