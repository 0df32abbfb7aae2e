"""The other services, as the gateway calls them: a deadline, one error tree, and patience."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import grpc.aio
from demiurge.descriptor.v1.descriptor_service_pb2_grpc import DescriptorServiceStub
from demiurge.playback.v1.playback_service_pb2_grpc import PlaybackServiceStub
from demiurge.predictor.v1.predictor_service_pb2_grpc import PredictorServiceStub
from demiurge.query.v1.query_service_pb2_grpc import QueryServiceStub
from demiurge.synth.v1.synth_service_pb2_grpc import SynthServiceStub
from google.protobuf.message import Message

from services.errors import BusyError, TimeExceededError
from services.runtime.channels import open_channel
from services.runtime.settings import RuntimeSettings
from services.runtime.status import error_from_rpc

if TYPE_CHECKING:
    from demiurge.descriptor.v1.descriptor_service_pb2_grpc import DescriptorServiceAsyncStub
    from demiurge.playback.v1.playback_service_pb2_grpc import PlaybackServiceAsyncStub
    from demiurge.predictor.v1.predictor_service_pb2_grpc import PredictorServiceAsyncStub
    from demiurge.query.v1.query_service_pb2_grpc import QueryServiceAsyncStub
    from demiurge.synth.v1.synth_service_pb2_grpc import SynthServiceAsyncStub

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response")

FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 5.0


class Peers:
    """Stubs of the five services that a run calls; each channel is opened when first needed.

    `address_of` gives host:port for a noun.
    """

    def __init__(
        self, address_of: Callable[[str], str], settings: RuntimeSettings, timeout_seconds: float
    ) -> None:
        self._address_of = address_of
        self._settings = settings
        self._timeout_seconds = timeout_seconds
        self._channels: dict[str, grpc.aio.Channel] = {}

    @property
    def synth(self) -> "SynthServiceAsyncStub":
        """The synth service."""
        return SynthServiceStub(self._channel("synth"))

    @property
    def descriptor(self) -> "DescriptorServiceAsyncStub":
        """The descriptor service."""
        return DescriptorServiceStub(self._channel("descriptor"))

    @property
    def predictor(self) -> "PredictorServiceAsyncStub":
        """The predictor service: ours or anybody's."""
        return PredictorServiceStub(self._channel("predictor"))

    @property
    def query(self) -> "QueryServiceAsyncStub":
        """The query service."""
        return QueryServiceStub(self._channel("query"))

    @property
    def playback(self) -> "PlaybackServiceAsyncStub":
        """The playback service."""
        return PlaybackServiceStub(self._channel("playback"))

    async def close(self) -> None:
        """Closes what was opened."""
        for channel in self._channels.values():
            await channel.close()

    def _channel(self, noun: str) -> grpc.aio.Channel:
        if noun not in self._channels:
            address = self._address_of(noun)
            self._channels[noun] = open_channel(address, self._settings, noun=noun)
        return self._channels[noun]

    async def call(self, method: Callable[..., Awaitable[Response]], request: Request) -> Response:
        """One unary call, at most DEMIURGE_GATEWAY_CALL_TIMEOUT_SECONDS long.

        A busy service is asked again after a growing pause; whatever else goes wrong is raised as
        the error of services.errors that the service raised.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout_seconds
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                return await method(request, timeout=deadline - loop.time())
            except grpc.aio.AioRpcError as failure:
                error = error_from_rpc(failure)
                if isinstance(error, TimeExceededError):
                    raise TimeExceededError(
                        f"{request.DESCRIPTOR.full_name}: no answer within "
                        f"{self._timeout_seconds:g} s: look at the service's log, or raise "
                        "DEMIURGE_GATEWAY_CALL_TIMEOUT_SECONDS"
                    ) from failure
                if not isinstance(error, BusyError):
                    raise error from failure
            # Full jitter keeps callers that were refused together from coming back together.
            await asyncio.sleep(random.uniform(0, pause))  # noqa: S311 - no secret depends on it
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
