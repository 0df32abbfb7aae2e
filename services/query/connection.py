"""How a Qdrant server is reached over gRPC, and what its errors are called here."""

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TypeVar

import grpc
from qdrant_client import QdrantClient
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse

from services.errors import (
    BusyError,
    ConflictError,
    DemiurgeError,
    InvalidInputError,
    NotFoundError,
    StorageFullError,
    UnauthenticatedError,
    UnavailableError,
)
from services.query.index import Checkpoint, never_stopped

# Calls that did not reach the server are tried again for less than a second, for whoever calls us
# does so too; all can be repeated.
_RETRIES = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.1s",
                    "maxBackoff": "1s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ]
    }
)
_KEEPALIVE_MILLISECONDS = 10_000
# Left to itself, gRPC waits for up to two minutes before it looks for a server that was away.
_RECONNECT_MILLISECONDS = {"initial": 100, "max": 1000}
# Calls go round several connections: one stream of bytes is filled by one thread.
_CONNECTIONS = 4
_CALLS_AT_ONCE = 16
_CALLS_IN_FLIGHT = 4
_CHECKED_EVERY_SECONDS = 0.1

# Requests that are refused for what they say: a name that is taken, a collection that is gone.
_REFUSED: dict[grpc.StatusCode, type[DemiurgeError]] = {
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.ALREADY_EXISTS: ConflictError,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidInputError,
    grpc.StatusCode.FAILED_PRECONDITION: InvalidInputError,
}

_Answer = TypeVar("_Answer")


class Connection:
    """Calls to the server that `client` reaches; `url` names it in errors.

    Every method raises UnavailableError if the server cannot be reached or does not answer in
    time, UnauthenticatedError if it refuses the key, StorageFullError and BusyError; and
    NotFoundError, ConflictError or InvalidInputError for requests that it refuses.
    """

    def __init__(self, client: QdrantClient, url: str) -> None:
        self.client = client
        self.url = url
        self._pool = ThreadPoolExecutor(_CALLS_AT_ONCE, thread_name_prefix="qdrant")

    def call(self, call: Callable[[], _Answer], checkpoint: Checkpoint = never_stopped) -> _Answer:
        """The answer of one call."""
        [answer] = self.calls([call], checkpoint)
        return answer

    def calls(
        self, calls: Iterable[Callable[[], _Answer]], checkpoint: Checkpoint = never_stopped
    ) -> Iterator[_Answer]:
        """The answers of several calls, a few of which are under way at once, in order.

        `checkpoint` is called all the time, however long the server takes. Where it raises, calls
        that are under way are left to themselves.
        """
        waiting: deque[Future[_Answer]] = deque()
        try:
            for call in calls:
                if len(waiting) == _CALLS_IN_FLIGHT:
                    yield _awaited(waiting.popleft(), checkpoint)
                waiting.append(self._pool.submit(self._translated, call))
            while waiting:
                yield _awaited(waiting.popleft(), checkpoint)
        finally:
            for future in waiting:
                future.cancel()

    def _translated(self, call: Callable[[], _Answer]) -> _Answer:
        with _translated(self.url):
            return call()

    def close(self) -> None:
        """Hangs up."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self.client.close()


def _awaited(future: Future[_Answer], checkpoint: Checkpoint) -> _Answer:
    while True:
        checkpoint()
        with suppress(TimeoutError):
            return future.result(_CHECKED_EVERY_SECONDS)


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
        **{f"grpc.{end}_reconnect_backoff_ms": ms for end, ms in _RECONNECT_MILLISECONDS.items()},
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


@contextmanager
def _translated(url: str) -> Iterator[None]:
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


def _ours(url: str, code: grpc.StatusCode, said: str) -> DemiurgeError:
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
        case _ if code in _REFUSED:
            return _REFUSED[code](f"Qdrant at {url}: {said}", culprit=url)
        case _:
            return failure(url, said)
