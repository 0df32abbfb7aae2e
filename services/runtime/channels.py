"""Channels to other services: round robin, retries where they are safe, request ids and deadlines.

The policy: calls that never reached a servicer, or that it was too late to take (UNAVAILABLE), are
tried again; nothing else is, nor a call that failed because someone behind the service was away.
gRPC's Python does not pass deadlines on, so interceptors do.
"""

import json
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import grpc

from services.errors import ConfigurationError
from services.runtime.addresses import is_loopback
from services.runtime.call import current_call
from services.runtime.security import channel_credentials
from services.runtime.settings import RuntimeSettings
from services.runtime.tokens import AUTHORIZATION_KEY, Tokens, bearer, tokens_of

# Servers allow pings every MIN_PING_INTERVAL_SECONDS, and hang up on clients that send more.
KEEPALIVE_SECONDS = 30
KEEPALIVE_TIMEOUT_SECONDS = 10
MAX_RECONNECT_SECONDS = 5
SERVICE_CONFIG = json.dumps(
    {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 5,
                    "initialBackoff": "0.1s",
                    "maxBackoff": "2s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ],
    }
)

_Options = list[tuple[str, Any]]


def open_channel(address: str, settings: RuntimeSettings, *, noun: str = "") -> grpc.aio.Channel:
    """A channel to host:port for use in the running event loop. Close it when done.

    `noun` says whose service it is: what stands in for one may be sent another token, or none.

    Raises ConfigurationError, naming the variable, for credentials that cannot be used or would go
    unprotected over a network.
    """
    tokens = _tokens_for(address, settings, noun)
    interceptors = [
        kind(tokens) for kind in (_UnaryUnary, _UnaryStream, _StreamUnary, _StreamStream)
    ]
    options = channel_options(settings)
    credentials = channel_credentials(settings)
    if credentials is None:
        return grpc.aio.insecure_channel(_target(address), options, interceptors=interceptors)
    return grpc.aio.secure_channel(
        _target(address), credentials, options, interceptors=interceptors
    )


def open_blocking_channel(
    address: str, settings: RuntimeSettings, *, noun: str = ""
) -> grpc.Channel:
    """Like open_channel, without an event loop: for the command line."""
    tokens = _tokens_for(address, settings, noun)
    options = channel_options(settings)
    credentials = channel_credentials(settings)
    if credentials is None:
        channel = grpc.insecure_channel(_target(address), options)
    else:
        channel = grpc.secure_channel(_target(address), credentials, options)
    return grpc.intercept_channel(channel, _Blocking(tokens))


def channel_options(settings: RuntimeSettings) -> _Options:
    """What gRPC is told about every channel."""
    return [
        ("grpc.service_config", SERVICE_CONFIG),
        ("grpc.enable_retries", 1),
        # Requests beyond this are not retried, and the default is less than one inline track.
        ("grpc.per_rpc_retry_buffer_size", settings.max_message_bytes),
        # gRPC's own is two minutes: a service that is back would go on being away.
        ("grpc.max_reconnect_backoff_ms", MAX_RECONNECT_SECONDS * 1000),
        # gRPC's own is half a minute: replicas that are new would wait for as long.
        ("grpc.dns_min_time_between_resolutions_ms", MAX_RECONNECT_SECONDS * 1000),
        ("grpc.keepalive_time_ms", KEEPALIVE_SECONDS * 1000),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_SECONDS * 1000),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        # Addresses are reached as they are written; a proxy for the web is none for services.
        ("grpc.enable_http_proxy", 0),
    ]


def _target(address: str) -> str:
    return address if "://" in address or address.startswith("unix:") else f"dns:///{address}"


def _tokens_for(address: str, settings: RuntimeSettings, noun: str) -> Tokens | None:
    tokens = tokens_of(settings, settings.token_field_of(noun))
    host = address.rsplit("://", maxsplit=1)[-1].strip("/").rpartition(":")[0]
    local = address.startswith("unix:") or is_loopback(host)
    if tokens and not settings.tls_ca and not local and not settings.allow_insecure_bind:
        raise ConfigurationError(
            f"DEMIURGE_TLS_CA: the token would go to {address} unprotected; set the authority "
            "that the server's certificate comes from",
            culprit="DEMIURGE_TLS_CA",
        )
    return tokens


class _Details(NamedTuple):
    """grpc.ClientCallDetails, and grpc.aio's, are read by attribute."""

    method: Any
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: Any
    compression: Any


class _PassOn:
    """Adds ids, remaining deadline and token to calls."""

    _aio = True

    def __init__(self, tokens: Tokens | None) -> None:
        self._tokens = tokens

    def passed_on(self, details: Any) -> Any:
        metadata = [*(details.metadata or ())]
        timeout = details.timeout
        call = current_call()
        if call:
            metadata += call.metadata
            left = call.seconds_left
            if left is not None:
                timeout = left if timeout is None else min(timeout, left)
        if self._tokens:
            metadata.append((AUTHORIZATION_KEY, bearer(self._tokens.current())))
        return _Details(
            details.method,
            timeout,
            grpc.aio.Metadata(*metadata) if self._aio else metadata,
            details.credentials,
            details.wait_for_ready,
            getattr(details, "compression", None),
        )


_Continuation = Callable[[Any, Any], Awaitable[Any]]


class _UnaryUnary(_PassOn, grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(
        self, continuation: _Continuation, client_call_details: Any, request: Any
    ) -> Any:
        return await continuation(self.passed_on(client_call_details), request)


class _UnaryStream(_PassOn, grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(
        self, continuation: _Continuation, client_call_details: Any, request: Any
    ) -> Any:
        return await continuation(self.passed_on(client_call_details), request)


class _StreamUnary(_PassOn, grpc.aio.StreamUnaryClientInterceptor):
    async def intercept_stream_unary(
        self, continuation: _Continuation, client_call_details: Any, request_iterator: Any
    ) -> Any:
        return await continuation(self.passed_on(client_call_details), request_iterator)


class _StreamStream(_PassOn, grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(
        self, continuation: _Continuation, client_call_details: Any, request_iterator: Any
    ) -> Any:
        return await continuation(self.passed_on(client_call_details), request_iterator)


class _Blocking(
    _PassOn,
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    _aio = False

    def intercept_unary_unary(
        self, continuation: Any, client_call_details: Any, request: Any
    ) -> Any:
        return continuation(self.passed_on(client_call_details), request)

    def intercept_unary_stream(
        self, continuation: Any, client_call_details: Any, request: Any
    ) -> Any:
        return continuation(self.passed_on(client_call_details), request)

    def intercept_stream_unary(
        self, continuation: Any, client_call_details: Any, request_iterator: Any
    ) -> Any:
        return continuation(self.passed_on(client_call_details), request_iterator)

    def intercept_stream_stream(
        self, continuation: Any, client_call_details: Any, request_iterator: Any
    ) -> Any:
        return continuation(self.passed_on(client_call_details), request_iterator)
