"""A server inside another program: an event loop in a thread of its own, on a loopback port."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from services.runtime.metrics import Metrics
from services.runtime.server import Registration, Server
from services.runtime.settings import RuntimeSettings


def embedded_settings(settings: RuntimeSettings) -> RuntimeSettings:
    """The same, for a server that only this machine reaches: any free loopback port, no TLS."""
    return settings.model_copy(
        update={
            "bind_address": "127.0.0.1",
            "port": 0,
            "health_port": None,
            "metrics_port": None,
            "tls_certificate": None,
            "tls_key": None,
            "tls_ca": None,
        }
    )


@contextmanager
def embedded(
    build: Callable[[], Sequence[Registration]], settings: RuntimeSettings, metrics: Metrics
) -> Iterator[Server]:
    """A started server, drained and stopped afterwards.

    `build` makes the servicers; it is called in the server's own event loop. What it or the start
    raises is raised here.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=_run, args=(loop,), name="demiurge-server", daemon=True)
    thread.start()

    async def start() -> Server:
        server = Server(build(), settings, metrics)
        await server.start()
        return server

    starting = asyncio.run_coroutine_threadsafe(start(), loop)
    try:
        yield starting.result()
    finally:
        # Ctrl-C may have come while it was starting; a server is stopped in any case.
        if starting.exception() is None:
            asyncio.run_coroutine_threadsafe(starting.result().stop(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()
