"""A span for every call, within the trace of its caller."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
from typing_extensions import override

from services.runtime.call import current_call
from services.runtime.interceptors.around import HEALTH_SERVICE, AroundCall, Context, at_end
from services.runtime.tracing import Tracing

# https://opentelemetry.io/docs/specs/semconv/rpc/grpc/: the others are the caller's own doing.
FAULTS = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}


class TracingInterceptor(AroundCall):
    """Health checks have none."""

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing

    @override
    @asynccontextmanager
    async def around(
        self, details: grpc.HandlerCallDetails, context: Context
    ) -> AsyncIterator[None]:
        if details.method.startswith(HEALTH_SERVICE):
            yield
            return
        name = details.method.removeprefix("/")
        service, _, method = name.rpartition("/")
        attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
        if call := current_call():
            attributes["demiurge.request_id"] = call.request_id
            if call.run_id:
                attributes["demiurge.run_id"] = call.run_id
        with self._tracing.span(name, attributes, serves=True) as span:

            def tell(code: str) -> None:
                span.note("rpc.response.status_code", code)
                if code in FAULTS:
                    span.fail(code)

            with at_end(context, tell):
                yield
