"""Asks every call but health checks for the bearer token."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
from typing_extensions import override

from services.errors import UnauthenticatedError
from services.runtime.interceptors.around import HEALTH_SERVICE, AroundCall, Context
from services.runtime.security import AUTHORIZATION_KEY, is_bearer_of


class AuthenticationInterceptor(AroundCall):
    """Refuses calls without the token. Probes have none, and learn nothing but health."""

    def __init__(self, token: str) -> None:
        self._token = token

    @override
    @asynccontextmanager
    async def around(
        self,
        details: grpc.HandlerCallDetails,
        context: Context,
    ) -> AsyncIterator[None]:
        if not details.method.startswith(HEALTH_SERVICE):
            value = str(dict(details.invocation_metadata or ()).get(AUTHORIZATION_KEY, ""))
            if not is_bearer_of(self._token, value):
                raise UnauthenticatedError(
                    "no valid bearer token; set DEMIURGE_TOKEN_FILE to the server's token"
                    if value
                    else "a bearer token is needed; set DEMIURGE_TOKEN_FILE"
                )
        yield
