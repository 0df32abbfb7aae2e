"""The other services, as the gateway calls them: a deadline, one error tree, and patience."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
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
    DemiurgeError,
    InvalidInputError,
    TimeExceededError,
    UnauthenticatedError,
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


def nowhere(address: str) -> bool:  # noqa: ARG001
    """What allows a run no predictor of its own, wherever it is."""
    return False


class Peers:
    """Stubs of the five services that a run calls; each channel is opened when first needed.

    `address_of` gives host:port for a noun, `allows` says at which host:port a run may have a
    predictor of its own.
    """

    def __init__(
        self,
        address_of: Callable[[str], str],
        settings: RuntimeSettings,
        timeout_seconds: float,
        patience: Patience,
        allows: Callable[[str], bool] = nowhere,
    ) -> None:
        self._address_of = address_of
        self._allows = allows
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
        """The predictor service of the deployment: ours or anybody's."""
        return PredictorServiceStub(self._channel("predictor"))

    @asynccontextmanager
    async def predictor_at(self, address: str) -> "AsyncIterator[PredictorServiceAsyncStub]":
        """The predictor service at host:port for as long as this lasts; "" is the deployment's.

        It is sent no token. Where DEMIURGE_TLS_CA is set it needs a certificate of that authority,
        as every service; where it is not, it is spoken to without TLS. Raises InvalidInputError,
        naming the setting, for an address that is not allowed.
        """
        if not address:
            yield self.predictor
            return
        if not self._allows(address):
            raise InvalidInputError(
                f"predictor_address {address}: this gateway may not connect there; who runs it "
                f"allows it by DEMIURGE_GATEWAY_PREDICTOR_ADDRESSES={address}",
                culprit="predictor_address",
            )
        settings = self._settings.model_copy(
            update={"token_file": None, "predictor_token_file": None}
        )
        # The scheme keeps a host that is called "unix" from being a file.
        channel = open_channel(f"dns:///{address}", settings)
        try:
            yield PredictorServiceStub(channel)
        finally:
            await channel.close()

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

    async def call(
        self,
        method: Callable[..., Awaitable[Response]],
        request: Request,
        *,
        address: str = "",
    ) -> Response:
        """One unary call of a run, as by `ask`; a service that is away for a while is waited for.

        Raises UnavailableError, naming the service, when it stays away.
        """
        return await self._patience.ride_out(
            lambda heard: self.ask(method, request, heard, address=address),
            _service(request, address),
        )

    async def ask(
        self,
        method: Callable[..., Awaitable[Response]],
        request: Request,
        heard: Callable[[], None] = lambda: None,
        *,
        address: str = "",
    ) -> Response:
        """One unary call, at most DEMIURGE_GATEWAY_CALL_TIMEOUT_SECONDS long.

        `address` is where the method is, if not the deployment's. A busy service was `heard`, and
        is asked again after a growing pause; whatever else goes wrong is raised as the error of
        services.errors that the service raised.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout_seconds
        waits = pauses()
        while True:
            try:
                return await method(request, timeout=deadline - loop.time())
            except grpc.aio.AioRpcError as failure:
                error = error_from_rpc(failure)
                if not _is_busy(error, failure):
                    raise self._told(error, request, address) from failure
            heard()
            await asyncio.sleep(next(waits))

    def _told(self, error: DemiurgeError, request: Message, address: str) -> DemiurgeError:
        """The error of a call, as whoever asked for a run is to hear of it."""
        service, noun = _service(request, address), _noun(request)
        if isinstance(error, TimeExceededError):
            asked = request.DESCRIPTOR.name.removesuffix("Request")
            return TimeExceededError(
                f"{service} did not answer {asked} within {self._timeout_seconds:g} s: look at its "
                "log and its load; if it only needs longer, raise "
                "DEMIURGE_GATEWAY_CALL_TIMEOUT_SECONDS",
                culprit=address or noun,
            )
        if isinstance(error, CancelledError):
            # Not by us, or it would be asyncio's own: the service is stopping.
            return UnavailableError(error.message, culprit=error.culprit)
        if isinstance(error, UnavailableError) and not error.culprit:
            place = "there" if address else f"at DEMIURGE_{noun.upper()}_ADDRESS"
            return UnavailableError(
                f"{service} cannot be reached: {error.message}; see that it runs {place}, and try "
                "again",
                culprit=address or noun,
            )
        if not address:
            return error
        if isinstance(error, UnauthenticatedError):
            return UnauthenticatedError(
                f"{service} asks for a token, and a predictor of a run's own is sent none: serve "
                "it without, or as the deployment's, by DEMIURGE_PREDICTOR_ADDRESS",
                culprit=address,
            )
        return type(error)(f"{service}: {error.message}", culprit=error.culprit)


def _is_busy(error: DemiurgeError, failure: grpc.aio.AioRpcError) -> bool:
    """Whether a service is to be asked again; somebody's own may say so by the code alone."""
    by_code = (
        type(error) is DemiurgeError
        and failure.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        # gRPC's own words, by the same code, for what will not become smaller.
        and "larger than max" not in error.message
    )
    return by_code or isinstance(error, BusyError)


def _noun(request: Message) -> str:
    """Whose request it is, by its package: demiurge.<noun>.v1."""
    return request.DESCRIPTOR.full_name.split(".")[1]


def _service(request: Message, address: str) -> str:
    """Who is asked, as errors name it."""
    noun = _noun(request)
    return f"the {noun} at {address}" if address else f"the {noun} service"
