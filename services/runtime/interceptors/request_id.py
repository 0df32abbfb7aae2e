"""Gives every call a request id and makes its ids and deadline known to what runs for it."""

import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
from typing_extensions import override

from services.runtime.call import (
    REQUEST_ID_KEY,
    RUN_ID_KEY,
    TRACE_KEY,
    Call,
    new_request_id,
    serving,
)
from services.runtime.interceptors.around import AroundCall, Context

_ACCEPTED = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
_TRACE = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


class RequestIdInterceptor(AroundCall):
    """Takes `x-request-id` from the caller, or makes one; sends it back in trailing metadata.

    `x-run-id` and `traceparent` are taken as well, where the caller has them.
    """

    @override
    @asynccontextmanager
    async def around(
        self, details: grpc.HandlerCallDetails, context: Context
    ) -> AsyncIterator[None]:
        metadata = dict(details.invocation_metadata or ())

        def told(key: str, accepted: re.Pattern[str]) -> str:
            # What callers write goes into logs, so it is not taken as it comes.
            value = str(metadata.get(key, ""))
            return value if accepted.fullmatch(value) else ""

        request_id = told(REQUEST_ID_KEY, _ACCEPTED) or new_request_id()
        remaining = context.time_remaining()
        deadline = None if remaining is None else time.monotonic() + remaining
        context.set_trailing_metadata(((REQUEST_ID_KEY, request_id),))
        run_id, traceparent = told(RUN_ID_KEY, _ACCEPTED), told(TRACE_KEY, _TRACE)
        with serving(Call(request_id, deadline, run_id, traceparent)):
            yield
