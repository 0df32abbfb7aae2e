"""Counts and times every call by its method and final code."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
from typing_extensions import override

from services.runtime.interceptors.around import HEALTH_SERVICE, AroundCall, Context, at_end
from services.runtime.metrics import UNKNOWN_METHOD, Metrics


class MetricsInterceptor(AroundCall):
    """Health checks are not counted: they would drown the calls."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    @override
    @asynccontextmanager
    async def around(
        self, details: grpc.HandlerCallDetails, context: Context
    ) -> AsyncIterator[None]:
        if details.method.startswith(HEALTH_SERVICE):
            yield
            return
        method = details.method.removeprefix("/")
        begin = time.monotonic()

        def tell(code: str) -> None:
            self._metrics.requests.labels(method, code).inc()
            self._metrics.request_duration.labels(method).observe(time.monotonic() - begin)

        with (
            at_end(context, tell),
            self._metrics.requests_in_flight.labels(method).track_inprogress(),
        ):
            yield

    @override
    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await super().intercept_service(continuation, handler_call_details)
        if handler is None:
            # Under one name, or strangers could make as many series as they think of names.
            self._metrics.requests.labels(UNKNOWN_METHOD, "UNIMPLEMENTED").inc()
        return handler
