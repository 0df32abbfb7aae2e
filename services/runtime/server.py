"""A server: servicers behind the interceptors, health, and a stop that loses no call."""

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import structlog
from grpc_reflection.v1alpha import reflection

from services.errors import ConfigurationError
from services.runtime.addresses import authority
from services.runtime.channels import KEEPALIVE_SECONDS, KEEPALIVE_TIMEOUT_SECONDS
from services.runtime.health import Health, HealthPort
from services.runtime.interceptors.access_log import AccessLogInterceptor
from services.runtime.interceptors.authentication import AuthenticationInterceptor
from services.runtime.interceptors.errors import ErrorInterceptor
from services.runtime.interceptors.in_flight import InFlightInterceptor
from services.runtime.interceptors.metrics import MetricsInterceptor
from services.runtime.interceptors.request_id import RequestIdInterceptor
from services.runtime.interceptors.tracing import TracingInterceptor
from services.runtime.interceptors.validation import ValidationInterceptor
from services.runtime.metrics import Metrics, MetricsPort
from services.runtime.security import checked_bind, server_credentials
from services.runtime.settings import RuntimeSettings
from services.runtime.tokens import tokens_of
from services.runtime.tracing import Tracing

# Less than what clients send, so that a ping that comes early is no offence.
MIN_PING_INTERVAL_SECONDS = KEEPALIVE_SECONDS // 2
LAST_CALL_SECONDS = 0.5
# A loop that was not its turn for so long hangs; probes wait longer for their answer.
LOOP_SECONDS = 2.0


@dataclass(frozen=True)
class Registration:
    """One service: its full name in the contract, and how it is added, warmed up and shut down.

    `warm_up` returns when the service can answer; `drain` is called when a stop begins, to end
    streams that would outlast it; `shut_down` after the last call has ended.
    """

    name: str
    add: Callable[[grpc.aio.Server], None]
    warm_up: Callable[[], Awaitable[None]] | None = None
    drain: Callable[[], None] | None = None
    shut_down: Callable[[], Awaitable[None]] | None = None


class Server:
    """Serves in the event loop that it was started in."""

    def __init__(
        self,
        registrations: Sequence[Registration],
        settings: RuntimeSettings,
        metrics: Metrics,
        tracing: Tracing | None = None,
    ) -> None:
        self._registrations = registrations
        self._settings = settings
        self._metrics = metrics
        self._tracing = tracing or Tracing()
        self._metrics_port: MetricsPort | None = None
        self._in_flight = InFlightInterceptor()
        self._health = Health([registration.name for registration in registrations])
        self._server: grpc.aio.Server | None = None
        self._port = 0
        self._health_port: HealthPort | None = None
        self._ready = False

    @property
    def port(self) -> int:
        """The bound port, once started."""
        return self._port

    @property
    def health_port(self) -> int:
        """The port for probes, once started; 0 if there is none."""
        return self._health_port.port if self._health_port else 0

    @property
    def metrics_port(self) -> int:
        """The port of /metrics, once started; 0 if there is none."""
        return self._metrics_port.port if self._metrics_port else 0

    async def start(self) -> None:
        """Binds, answers health checks, and returns when every service is warm.

        Raises ConfigurationError, naming the variable, for an address that cannot be bound or
        must not be, and whatever a warm-up raises.
        """
        checked_bind(self._settings)
        loop = asyncio.get_running_loop()
        self._metrics.ready.set_function(lambda: self._ready and turns(loop))
        self._server = self._built()
        self._port = self._bound(self._server)
        await self._health.starting()
        try:
            if self._settings.health_port is not None:
                self._health_port = HealthPort(self._health, self._settings)
                await self._health_port.start()
            if self._settings.metrics_port is not None:
                self._metrics_port = MetricsPort(self._metrics, self._settings)
            await self._server.start()
            for registration in self._registrations:
                if registration.warm_up:
                    await registration.warm_up()
                await self._health.serving(registration.name)
        except BaseException:
            await self._server.stop(0)
            await self._close_telemetry()
            raise
        await self._health.ready()
        self._ready = True
        structlog.get_logger().info(
            "serving",
            address=self._settings.bind_address,
            port=self._port,
            services=[registration.name for registration in self._registrations],
        )

    async def stop(self) -> None:
        """Not serving, then calls in flight finish, at most drain_seconds, then the end."""
        if self._server is None:
            return
        self._ready = False
        await self._health.draining()
        for registration in self._registrations:
            if registration.drain:
                registration.drain()
        if not await self._in_flight.drain(self._settings.drain_seconds):
            structlog.get_logger().warning("calls in flight were cut off", port=self._port)
        # A call that arrived last is refused in our words, and so asked elsewhere, not cut off.
        await self._server.stop(LAST_CALL_SECONDS)
        for registration in self._registrations:
            if registration.shut_down:
                await registration.shut_down()
        await self._close_telemetry()

    async def wait(self) -> None:
        """Returns when the server has stopped."""
        if self._server:
            await self._server.wait_for_termination()

    async def _close_telemetry(self) -> None:
        if self._health_port:
            await self._health_port.stop()
        if self._metrics_port:
            await asyncio.to_thread(self._metrics_port.close)
        if self._tracing.enabled:
            await asyncio.to_thread(self._tracing.close)

    def _built(self) -> grpc.aio.Server:
        tokens = tokens_of(self._settings)
        server = grpc.aio.server(
            interceptors=[
                RequestIdInterceptor(),
                *([TracingInterceptor(self._tracing)] if self._tracing.enabled else []),
                AccessLogInterceptor(),
                MetricsInterceptor(self._metrics),
                ErrorInterceptor(),
                self._in_flight,
                *([AuthenticationInterceptor(tokens)] if tokens else []),
                ValidationInterceptor(),
            ],
            options=self._options(),
        )
        self._health.add_to(server)
        for registration in self._registrations:
            registration.add(server)
        if self._settings.reflection:
            names = [registration.name for registration in self._registrations]
            reflection.enable_server_reflection([*names, reflection.SERVICE_NAME], server)
        return server

    def _options(self) -> list[tuple[str, Any]]:
        settings = self._settings
        return [
            ("grpc.max_send_message_length", settings.max_message_bytes),
            ("grpc.max_receive_message_length", settings.max_message_bytes),
            ("grpc.max_connection_age_ms", int(settings.max_connection_age_seconds * 1000)),
            # So that work for a client whose machine vanished is cancelled.
            ("grpc.keepalive_time_ms", KEEPALIVE_SECONDS * 1000),
            ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_SECONDS * 1000),
            ("grpc.http2.min_ping_interval_without_data_ms", MIN_PING_INTERVAL_SECONDS * 1000),
            # Otherwise a second server on the same port would get some of the calls.
            ("grpc.so_reuseport", 0),
        ]

    def _bound(self, server: grpc.aio.Server) -> int:
        settings = self._settings
        address = authority(settings.bind_address, settings.port)
        credentials = server_credentials(settings)
        try:
            if credentials is None:
                return server.add_insecure_port(address)
            return server.add_secure_port(address, credentials)
        except RuntimeError:
            variables = "DEMIURGE_BIND_ADDRESS, DEMIURGE_PORT" + (
                ", DEMIURGE_TLS_CERTIFICATE or DEMIURGE_TLS_KEY" if credentials else ""
            )
            raise ConfigurationError(
                f"{variables}: cannot listen on {address}; is the port taken?",
                culprit="DEMIURGE_PORT",
            ) from None


def turns(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether the loop of another thread turns: one that hangs serves nobody, whatever was so."""
    turned = threading.Event()
    try:
        loop.call_soon_threadsafe(turned.set)
    except RuntimeError:
        return False
    return turned.wait(LOOP_SECONDS)


async def serve(
    registrations: Sequence[Registration],
    settings: RuntimeSettings,
    metrics: Metrics,
    serving: Callable[[int], None] = lambda _: None,
    *,
    tracing: Tracing | None = None,
) -> None:
    """Runs a server until SIGTERM or SIGINT, then drains it; a second signal ends at once.

    `serving` is told the port once every service is warm.
    """
    server = Server(registrations, settings, metrics, tracing)
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        loop.add_signal_handler(number, told.set)
    stopped = asyncio.create_task(told.wait())
    started = asyncio.create_task(server.start())
    try:
        await asyncio.wait({stopped, started}, return_when=asyncio.FIRST_COMPLETED)
        if started.done():
            await started
            serving(server.port)
            await stopped
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
        stopped.cancel()
        # Told to stop while warming up: start cleans up after itself.
        if started.cancel():
            await asyncio.wait({started})
    await server.stop()
