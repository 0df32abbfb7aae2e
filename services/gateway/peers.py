"""The other services, as the gateway calls them: a deadline, one error tree, and patience."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import grpc.aio

from services.errors import BusyError, TimeExceededError
from services.runtime.status import error_from_rpc

if TYPE_CHECKING:
    from demiurge.descriptor.v1.descriptor_service_pb2_grpc import DescriptorServiceAsyncStub
    from demiurge.playback.v1.playback_service_pb2_grpc import PlaybackServiceAsyncStub
    from demiurge.predictor.v1.predictor_service_pb2_grpc import PredictorServiceAsyncStub
    from demiurge.query.v1.query_service_pb2_grpc import QueryServiceAsyncStub
    from demiurge.synth.v1.synth_service_pb2_grpc import SynthServiceAsyncStub

Request = TypeVar("Request")
Response = TypeVar("Response")

FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 5.0


@dataclass(frozen=True)
class Peers:
    """Stubs of the five services that a run calls."""

    synth: "SynthServiceAsyncStub"
    descriptor: "DescriptorServiceAsyncStub"
    predictor: "PredictorServiceAsyncStub"
    query: "QueryServiceAsyncStub"
    playback: "PlaybackServiceAsyncStub"
    timeout_seconds: float

    async def call(self, method: Callable[..., Awaitable[Response]], request: Request) -> Response:
        """One unary call, at most `timeout_seconds` long.

        A busy service is asked again after a growing pause; whatever else goes wrong is raised as
        the error of services.errors that the service raised.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.timeout_seconds
        pause = FIRST_PAUSE_SECONDS
        while True:
            remaining = deadline - loop.time()
            if remaining <= 0:
                raise TimeExceededError(
                    f"no answer within {self.timeout_seconds:g} s: raise "
                    "DEMIURGE_GATEWAY_CALL_TIMEOUT_SECONDS, or look at the service's log"
                )
            try:
                return await method(request, timeout=remaining)
            except grpc.aio.AioRpcError as failure:
                error = error_from_rpc(failure)
                if not isinstance(error, BusyError):
                    raise error from failure
            # Full jitter keeps callers that were refused together from coming back together.
            await asyncio.sleep(random.uniform(0, pause))  # noqa: S311 - no secret depends on it
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
