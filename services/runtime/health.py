"""Health by the gRPC protocol: is the process alive, and is a service ready?

Liveness ("" and "liveness") holds as long as the loop turns and never looks at anything else.
Readiness ("readiness", and each service by its full name) means loaded, warm and not draining.
Probes that know neither TLS nor token have a port of their own, which answers nothing else.
"""

from collections.abc import Sequence

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from services.errors import ConfigurationError
from services.runtime.addresses import authority
from services.runtime.settings import RuntimeSettings

LIVENESS = ("", "liveness")
READINESS = "readiness"
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Health:
    """The health of one server's services, by full name."""

    def __init__(self, services: Sequence[str]) -> None:
        self._services = services
        self._servicer = health.aio.HealthServicer()

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serves health checks."""
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    async def starting(self) -> None:
        """Alive, but not ready."""
        for name in LIVENESS:
            await self._servicer.set(name, _SERVING)
        for name in (READINESS, *self._services):
            await self._servicer.set(name, _NOT_SERVING)

    async def serving(self, service: str) -> None:
        """One service is warm."""
        await self._servicer.set(service, _SERVING)

    async def ready(self) -> None:
        """All are."""
        await self._servicer.set(READINESS, _SERVING)

    async def draining(self) -> None:
        """Still alive, but no longer ready, so that no new work is sent here."""
        for name in (READINESS, *self._services):
            await self._servicer.set(name, _NOT_SERVING)


class HealthPort:
    """A second listener, plaintext, that answers health checks alone and goes on while draining."""

    def __init__(self, health: Health, settings: RuntimeSettings) -> None:
        self._settings = settings
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        health.add_to(self._server)
        self.port = 0
        """The bound port, once started."""

    async def start(self) -> None:
        """Binds and answers. Raises ConfigurationError for a port that cannot be had."""
        address = authority(self._settings.bind_address, self._settings.health_port or 0)
        try:
            self.port = self._server.add_insecure_port(address)
        except RuntimeError:
            raise ConfigurationError(
                f"DEMIURGE_BIND_ADDRESS, DEMIURGE_HEALTH_PORT: cannot listen on {address}; is the "
                "port taken?",
                culprit="DEMIURGE_HEALTH_PORT",
            ) from None
        await self._server.start()

    async def stop(self) -> None:
        """Answers no more."""
        await self._server.stop(0)
