"""Counts the calls in flight, so that a stop can wait for them, and refuses new ones meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
from typing_extensions import override

from services.errors import UnavailableError
from services.runtime.interceptors.around import HEALTH_SERVICE, AroundCall, Context

# By this Envoy knows what to ask again, see deploy/envoy/http.yaml: another replica, or later.
ELSEWHERE = ("x-demiurge-elsewhere", "true")


class InFlightInterceptor(AroundCall):
    """Health checks are not counted: they are watched for ever, and asked while draining."""

    def __init__(self) -> None:
        self._count = 0
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    @override
    @asynccontextmanager
    async def around(
        self,
        details: grpc.HandlerCallDetails,
        context: Context,
    ) -> AsyncIterator[None]:
        if details.method.startswith(HEALTH_SERVICE):
            yield
            return
        if self._draining:
            context.set_trailing_metadata((*(context.trailing_metadata() or ()), ELSEWHERE))
            raise UnavailableError("this server is stopping: ask another replica")
        self._count += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._count -= 1
            if not self._count:
                self._idle.set()

    async def drain(self, seconds: float) -> bool:
        """Refuses new calls and waits for those in flight; False if some took too long."""
        self._draining = True
        try:
            await asyncio.wait_for(self._idle.wait(), seconds)
        except TimeoutError:
            return False
        return True
