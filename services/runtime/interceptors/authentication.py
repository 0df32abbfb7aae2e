"""Asks every call but health checks for a bearer token."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
from typing_extensions import override

from services.runtime.interceptors.around import HEALTH_SERVICE, AroundCall, Context
from services.runtime.tokens import AUTHORIZATION_KEY, Tokens


class AuthenticationInterceptor(AroundCall):
    """Refuses calls without a token. Probes have none, and learn nothing but health."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    @override
    @asynccontextmanager
    async def around(
        self,
        details: grpc.HandlerCallDetails,
        context: Context,
    ) -> AsyncIterator[None]:
        if not details.method.startswith(HEALTH_SERVICE):
            metadata = dict(details.invocation_metadata or ())
            self._tokens.check(str(metadata.get(AUTHORIZATION_KEY, "")))
        yield
