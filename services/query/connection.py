"""How a Qdrant server is reached over gRPC, and what its errors are called here."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
from qdrant_client import QdrantClient
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse

from services.errors import (
    BusyError,
    DemiurgeError,
    StorageFullError,
    UnauthenticatedError,
    UnavailableError,
)

# Calls that never reached the server are tried again for some three seconds; all can be repeated.
_RETRIES = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 5,
                    "initialBackoff": "0.2s",
                    "maxBackoff": "2s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ]
    }
)
_KEEPALIVE_MILLISECONDS = 10_000
# Calls go round several connections: one stream of bytes is filled by one thread.
_CONNECTIONS = 4


def connect(
    url: str,
    grpc_port: int,
    *,
    api_key: str = "",
    authorities: bytes | None = None,
    timeout_seconds: int = 60,
) -> QdrantClient:
    """A client of the server at http(s)://host[:port]; nothing is sent before the first call.

    `authorities` are PEM certificates that the server's own must come from, None for those of the
    system; each call may take `timeout_seconds`.
    """
    options: dict[str, object] = {
        "grpc.service_config": _RETRIES,
        "grpc.enable_retries": 1,
        "grpc.keepalive_time_ms": _KEEPALIVE_MILLISECONDS,
        "grpc.keepalive_timeout_ms": _KEEPALIVE_MILLISECONDS,
        # The address is reached as it is written; a proxy for the web is none for services.
        "grpc.enable_http_proxy": 0,
    }
    if authorities is not None:
        options["root_certificates"] = authorities
    client = QdrantClient(
        url=url,
        grpc_port=grpc_port,
        prefer_grpc=True,
        grpc_options=options,
        pool_size=_CONNECTIONS,
        timeout=timeout_seconds,
        # As a header, because the client warns of every key over plain HTTP, loopback's too.
        headers={"api-key": api_key} if api_key else None,
        # What it cannot do is seen when it is asked to; the check would go over HTTP.
        check_compatibility=False,
        trust_env=False,
    )
    # Both are made once, by whoever comes first: threads would make them twice.
    _ = client.grpc_points, client.grpc_collections
    return client


class RejectedError(Exception):
    """The server refused a request for what it says, which may be expected: a name that is taken,
    a collection that is gone."""


@contextmanager
def translated(url: str) -> Iterator[None]:
    """Raises what goes wrong in calls to the server at `url` as errors of ours.

    UnavailableError if it cannot be reached or does not answer in time, UnauthenticatedError if it
    refuses the key, StorageFullError, BusyError; RejectedError for a request that it refuses.
    """
    try:
        yield
    except ResourceExhaustedResponse as error:
        raise BusyError(f"Qdrant at {url}: {error}; try again later", culprit=url) from error
    except grpc.RpcError as error:
        # Typed as a mere Exception, but every one that a call raises has these.
        code: grpc.StatusCode = error.code()
        said: str = error.details() or code.name
        raise _ours(url, code, said) from error


def failure(url: str, said: str) -> DemiurgeError:
    """What the server itself could not do, as an error of ours."""
    if "No space left" in said:
        return StorageFullError(
            f"Qdrant at {url}: {said}; make room on its disk, or delete collections", culprit=url
        )
    return UnavailableError(f"Qdrant at {url}: {said}; see the log of that server", culprit=url)


def _ours(url: str, code: grpc.StatusCode, said: str) -> Exception:
    match code:
        case grpc.StatusCode.UNAUTHENTICATED | grpc.StatusCode.PERMISSION_DENIED:
            return UnauthenticatedError(
                f"Qdrant at {url} refuses the key: {said}; put one that may read and write into "
                "the file that DEMIURGE_QUERY_API_KEY_FILE names",
                culprit="DEMIURGE_QUERY_API_KEY_FILE",
            )
        case grpc.StatusCode.UNAVAILABLE:
            return UnavailableError(
                f"Qdrant at {url} cannot be reached: {said}; start it, or correct "
                "DEMIURGE_QUERY_URL, DEMIURGE_QUERY_GRPC_PORT and DEMIURGE_QUERY_CA",
                culprit=url,
            )
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return UnavailableError(
                f"Qdrant at {url} did not answer in time; see whether it is overloaded or hangs",
                culprit=url,
            )
        case grpc.StatusCode.RESOURCE_EXHAUSTED if "No space left" not in said:
            return BusyError(f"Qdrant at {url}: {said}; try again later", culprit=url)
        case (
            grpc.StatusCode.NOT_FOUND
            | grpc.StatusCode.ALREADY_EXISTS
            | grpc.StatusCode.INVALID_ARGUMENT
            | grpc.StatusCode.FAILED_PRECONDITION
        ):
            return RejectedError(f"Qdrant at {url}: {said}")
        case _:
            return failure(url, said)
