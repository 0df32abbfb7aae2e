"""The other services, as the gateway calls them: a deadline, one error tree, and patience."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import grpc.aio
from demiurge.descriptor.v1.descriptor_service_pb2_grpc import DescriptorServiceStub
from demiurge.playback.v1.playback_service_pb2_grpc import PlaybackServiceStub
from demiurge.predictor.v1.predictor_service_pb2_grpc import PredictorServiceStub
from demiurge.query.v1.query_service_pb2_grpc import QueryServiceStub
from demiurge.synth.v1.synth_service_pb2_grpc import SynthServiceStub
from google.protobuf.message import Message

from services.errors import (
    BusyError,
    CancelledError,
    ConfigurationError,
    TimeExceededError,
    UnavailableError,
)
from services.gateway.patience import Patience
from services.runtime.channels import open_channel
from services.runtime.pauses import pauses
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

NOUNS = ("synth", "descriptor", "predictor", "query", "playback")


class Peers:
    """Stubs of the five services that a run calls; each channel is opened when first needed.

    `address_of` gives host:port for a noun.
    """

    def __init__(
        self,
        address_of: Callable[[str], str],
        settings: RuntimeSettings,
        timeout_seconds: float,
        patience: Patience,
    ) -> None:
        self._address_of = address_of
        self._settings = settings
        self._timeout_seconds = timeout_seconds
        self._patience = patience
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

    def known(self) -> bool:
        """Whether all addresses are known: this process may still be on its way to its own."""
        try:
            for noun in NOUNS:
                self._address_of(noun)
        except ConfigurationError:
            return False
        return True

    async def call(self, method: Callable[..., Awaitable[Response]], request: Request) -> Response:
        """One unary call of a run, as by `ask`; a service that is away for a while is waited for.

        Raises UnavailableError, naming the service, when it stays away.
        """
        what = f"the {_noun(request)} service"
        return await self._patience.ride_out(lambda heard: self.ask(method, request, heard), what)

    async def ask(
        self,
        method: Callable[..., Awaitable[Response]],
        request: Request,
        heard: Callable[[], None] = lambda: None,
    ) -> Response:
        """One unary call, at most DEMIURGE_GATEWAY_CALL_TIMEOUT_SECONDS long.

        A busy service was `heard`, and is asked again after a growing pause; whatever else goes
        wrong is raised as the error of services.errors that the service raised.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout_seconds
        waits = pauses()
        while True:
            try:
                return await method(request, timeout=deadline - loop.time())
            except grpc.aio.AioRpcError as failure:
                error = error_from_rpc(failure)
                if isinstance(error, TimeExceededError):
                    noun, asked = _noun(request), request.DESCRIPTOR.name.removesuffix("Request")
                    raise TimeExceededError(
                        f"the {noun} service did not answer {asked} within "
                        f"{self._timeout_seconds:g} s: look at its log and its load; if it only "
                        "needs longer, raise DEMIURGE_GATEWAY_CALL_TIMEOUT_SECONDS",
                        culprit=noun,
                    ) from failure
                if isinstance(error, CancelledError):
                    # Not by us, or it would be asyncio's own: the service is stopping.
                    raise UnavailableError(error.message, culprit=error.culprit) from failure
                if isinstance(error, UnavailableError) and not error.culprit:
                    noun = _noun(request)
                    raise UnavailableError(
                        f"the {noun} service cannot be reached: {error.message}; see that it runs "
                        f"at DEMIURGE_{noun.upper()}_ADDRESS, and try again",
                        culprit=noun,
                    ) from failure
                if not isinstance(error, BusyError):
                    raise error from failure
            heard()
            await asyncio.sleep(next(waits))


def _noun(request: Message) -> str:
    """Whose request it is, by its package: demiurge.<noun>.v1."""
    return request.DESCRIPTOR.full_name.split(".")[1]
