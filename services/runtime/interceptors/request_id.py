"""Gives every call a request id and makes its deadline known to what runs for it."""

import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
from typing_extensions import override

from services.runtime.call import REQUEST_ID_KEY, Call, new_request_id, serving
from services.runtime.interceptors.around import AroundCall, Context

_ACCEPTED = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")


class RequestIdInterceptor(AroundCall):
    """Takes `x-request-id` from the caller, or makes one; sends it back in trailing metadata."""

    @override
    @asynccontextmanager
    async def around(
        self, details: grpc.HandlerCallDetails, context: Context
    ) -> AsyncIterator[None]:
        request_id = str(dict(details.invocation_metadata or ()).get(REQUEST_ID_KEY, ""))
        # What callers write goes into logs, so it is not taken as it comes.
        if not _ACCEPTED.fullmatch(request_id):
            request_id = new_request_id()
        remaining = context.time_remaining()
        deadline = None if remaining is None else time.monotonic() + remaining
        context.set_trailing_metadata(((REQUEST_ID_KEY, request_id),))
        with serving(Call(request_id, deadline)):
            yield
