"""One log line a call: method, code, duration. Never its content."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import structlog
from typing_extensions import override

from services.runtime.interceptors.around import HEALTH_SERVICE, AroundCall, Context, code_name


class AccessLogInterceptor(AroundCall):
    """Logs calls as they end; health checks, which come every few seconds, at debug."""

    @override
    @asynccontextmanager
    async def around(
        self, details: grpc.HandlerCallDetails, context: Context
    ) -> AsyncIterator[None]:
        begin = time.monotonic()
        cancelled = False
        try:
            yield
        except asyncio.CancelledError:
            cancelled = True
            raise
        finally:
            log = structlog.get_logger()
            say = log.debug if details.method.startswith(HEALTH_SERVICE) else log.info
            say(
                "call",
                method=details.method,
                code="CANCELLED" if cancelled else code_name(context.code()),
                seconds=round(time.monotonic() - begin, 6),
                peer=context.peer(),
            )
