"""One log line a call: method, code, duration. Never its content."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import structlog
from typing_extensions import override

from services.runtime.interceptors.around import HEALTH_SERVICE, AroundCall, Context, at_end


class AccessLogInterceptor(AroundCall):
    """Logs calls as they end; health checks, which come every few seconds, at debug."""

    @override
    @asynccontextmanager
    async def around(
        self, details: grpc.HandlerCallDetails, context: Context
    ) -> AsyncIterator[None]:
        begin, log = time.monotonic(), structlog.get_logger()
        say = log.debug if details.method.startswith(HEALTH_SERVICE) else log.info

        def tell(code: str) -> None:
            seconds = round(time.monotonic() - begin, 6)
            say("call", method=details.method, code=code, seconds=seconds, peer=context.peer())

        with at_end(context, tell):
            yield
