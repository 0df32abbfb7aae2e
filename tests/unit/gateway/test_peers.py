from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
import pytest
import structlog
from demiurge.playback.v1 import playback_service_pb2 as pb
from demiurge.playback.v1 import playback_service_pb2_grpc as pb_grpc
from demiurge.predictor.v1 import predictor_service_pb2 as predictor_pb
from demiurge.predictor.v1 import predictor_service_pb2_grpc as predictor_grpc

from services.errors import (
    BusyError,
    CancelledError,
    DemiurgeError,
    InvalidInputError,
    TimeExceededError,
    UnauthenticatedError,
    UnavailableError,
)
from services.gateway.patience import Patience
from services.gateway.peers import Peers
from services.gateway.settings import GatewaySettings
from services.runtime.metrics import Metrics
from services.runtime.server import Registration, Server
from services.runtime.settings import RuntimeSettings

Context = grpc.aio.ServicerContext[object, object]
SETTINGS = RuntimeSettings(bind_address="127.0.0.1", port=0, drain_seconds=0)
REQUEST = pb.RenderAudioRequest(output_prefix="renders/run-1")
REQUEST.matches.sample_rate_hertz = REQUEST.matches.hop_length_samples = 1
REQUEST.matches.neighbors = 1


class Playback(pb_grpc.PlaybackServiceServicer):
    """Raises what it is told to, then answers."""

    def __init__(self) -> None:
        self.errors: list[Exception] = []
        self.calls = 0

    async def RenderAudio(self, *_: object) -> pb.RenderAudioResponse:  # noqa: N802
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return pb.RenderAudioResponse(sample_count=7)


@pytest.fixture
def playback() -> Playback:
    return Playback()


@pytest.fixture
async def peers(playback: Playback) -> AsyncIterator[Callable[[float], Peers]]:
    """Makes peers of that patience, in seconds."""
    registration = Registration(
        "demiurge.playback.v1.PlaybackService",
        lambda server: pb_grpc.add_PlaybackServiceServicer_to_server(playback, server),
    )
    server = Server([registration], SETTINGS, Metrics())
    await server.start()
    made: list[Peers] = []

    def make(seconds: float) -> Peers:
        made.append(Peers(lambda _: f"127.0.0.1:{server.port}", SETTINGS, seconds, Patience(30)))
        return made[-1]

    yield make
    for each in made:
        await each.close()
    await server.stop()


async def test_a_call_that_a_stopping_service_cut_off_is_no_warning(
    playback: Playback, peers: Callable[[float], Peers]
) -> None:
    playback.errors = [CancelledError("stopping")]
    calling = peers(30)

    with structlog.testing.capture_logs() as logs:
        await calling.call(calling.playback.RenderAudio, REQUEST)

    waiting = next(line for line in logs if line["event"] == "waiting")
    assert waiting["log_level"] == "info"
    assert waiting["awaited"] == "the playback service"


async def test_a_busy_service_is_asked_again_until_it_answers(
    playback: Playback, peers: Callable[[float], Peers]
) -> None:
    playback.errors = [BusyError("later")] * 3
    calling = peers(30)

    response = await calling.call(calling.playback.RenderAudio, REQUEST)

    assert response.sample_count == 7
    assert playback.calls == 4


async def test_whoever_asks_hears_of_a_busy_service_though_it_does_not_answer_yet(
    playback: Playback, peers: Callable[[float], Peers]
) -> None:
    playback.errors = [BusyError("later")] * 2
    calling = peers(30)
    heard: list[int] = []

    await calling.ask(calling.playback.RenderAudio, REQUEST, lambda: heard.append(playback.calls))

    assert heard == [1, 2]


async def test_a_service_that_stays_busy_is_given_up_by_its_name(
    playback: Playback, peers: Callable[[float], Peers]
) -> None:
    playback.errors = [BusyError("later")] * 1000
    calling = peers(0.2)

    with pytest.raises(TimeExceededError, match="playback") as caught:
        await calling.call(calling.playback.RenderAudio, REQUEST)

    assert "DEMIURGE_GATEWAY_CALL_TIMEOUT_SECONDS" in caught.value.message


async def test_an_error_arrives_as_it_was_raised_and_is_not_tried_again(
    playback: Playback, peers: Callable[[float], Peers]
) -> None:
    playback.errors = [InvalidInputError("wren.wav is no sound", culprit="wren.wav")]
    calling = peers(30)

    with pytest.raises(InvalidInputError, match=r"wren\.wav is no sound") as caught:
        await calling.call(calling.playback.RenderAudio, REQUEST)

    assert caught.value.culprit == "wren.wav"
    assert isinstance(caught.value.__cause__, grpc.RpcError)
    assert playback.calls == 1


async def test_a_service_that_is_not_there_is_named_by_its_address() -> None:
    calling = Peers(lambda _: "127.0.0.1:1", SETTINGS, 30, Patience(0.2))

    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1"):
        await calling.call(calling.playback.RenderAudio, REQUEST)

    await calling.close()


class Listener(predictor_grpc.PredictorServiceServicer):
    """Somebody's predictor, who keeps what tokens it is sent."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.error: Exception | None = None
        self.codes: list[tuple[grpc.StatusCode, str]] = []

    async def GetPredictor(self, _: object, context: Context) -> predictor_pb.GetPredictorResponse:  # noqa: N802
        metadata = dict(context.invocation_metadata() or ())
        self.heard.append(str(metadata.get("authorization", "")))
        if self.error:
            raise self.error
        if self.codes:
            await context.abort(*self.codes.pop(0))
        return predictor_pb.GetPredictorResponse()


@pytest.mark.parametrize(
    ("elsewhere", "own_token", "heard"),
    [(True, False, ""), (True, True, "Bearer theirs"), (False, False, "Bearer ours")],
)
async def test_a_predictor_elsewhere_hears_no_token_but_the_one_meant_for_it(
    tmp_path: Path, elsewhere: bool, own_token: bool, heard: str
) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.write_text("ours")
    theirs.write_text("theirs")
    listener = Listener()
    registration = Registration(
        "demiurge.predictor.v1.PredictorService",
        lambda server: predictor_grpc.add_PredictorServiceServicer_to_server(listener, server),
    )
    server = Server([registration], SETTINGS, Metrics())
    await server.start()
    address = f"127.0.0.1:{server.port}"
    settings = RuntimeSettings(
        token_file=ours,
        predictor_address=address if elsewhere else "",
        predictor_token_file=theirs if own_token else None,
    )
    calling = Peers(lambda _: address, settings, 30, Patience(30))

    await calling.call(
        calling.predictor.GetPredictor, predictor_pb.GetPredictorRequest(predictor_id="a")
    )

    assert listener.heard == [heard]
    await calling.close()
    await server.stop()


@pytest.fixture
async def listening() -> AsyncIterator[tuple[Listener, str]]:
    listener = Listener()
    registration = Registration(
        "demiurge.predictor.v1.PredictorService",
        lambda server: predictor_grpc.add_PredictorServiceServicer_to_server(listener, server),
    )
    server = Server([registration], SETTINGS, Metrics())
    await server.start()
    yield listener, f"localhost:{server.port}"
    await server.stop()


def with_own_predictor(settings: RuntimeSettings) -> Peers:
    allows = GatewaySettings().allowed_predictors("127.0.0.1")
    return Peers(lambda _: "", settings, 30, Patience(0), allows)


ASKED = predictor_pb.GetPredictorRequest(predictor_id="a")


async def test_a_predictor_of_a_runs_own_hears_no_token_whatever_is_set(
    tmp_path: Path, listening: tuple[Listener, str]
) -> None:
    listener, address = listening
    token = tmp_path / "token"
    token.write_text("secret")
    settings = RuntimeSettings(token_file=token, predictor_token_file=token, predictor_address="b")

    calling = with_own_predictor(settings)
    async with calling.predictor_at(address) as stub:
        await calling.call(stub.GetPredictor, ASKED, address=address)

    assert listener.heard == [""]


async def test_the_channel_to_it_is_closed_with_its_use(listening: tuple[Listener, str]) -> None:
    _, address = listening
    calling = with_own_predictor(SETTINGS)
    async with calling.predictor_at(address) as stub:
        pass

    with pytest.raises(grpc.aio.UsageError, match="closed"):
        await stub.GetPredictor(ASKED)


async def test_one_that_says_by_the_code_alone_that_it_is_busy_is_asked_again(
    listening: tuple[Listener, str],
) -> None:
    listener, address = listening
    listener.codes = [(grpc.StatusCode.RESOURCE_EXHAUSTED, "8 at work")] * 2
    calling = with_own_predictor(SETTINGS)
    async with calling.predictor_at(address) as stub:
        await calling.call(stub.GetPredictor, ASKED, address=address)
        assert len(listener.heard) == 3
        too_large = "SERVER: Received message larger than max (5 vs. 4)"
        listener.codes = [(grpc.StatusCode.RESOURCE_EXHAUSTED, too_large)]
        with pytest.raises(DemiurgeError, match="larger than max"):
            await calling.call(stub.GetPredictor, ASKED, address=address)


@pytest.mark.parametrize(
    ("raised", "kind", "words"),
    [
        (InvalidInputError("no such step"), InvalidInputError, "no such step"),
        (UnauthenticatedError("no token"), UnauthenticatedError, "DEMIURGE_PREDICTOR_ADDRESS"),
        (UnavailableError("gone"), UnavailableError, "see that it runs there"),
        (CancelledError("stopping"), UnavailableError, "stopping"),
    ],
)
async def test_what_goes_wrong_there_is_told_by_its_address(
    listening: tuple[Listener, str], raised: Exception, kind: type[Exception], words: str
) -> None:
    listener, address = listening
    listener.error = raised
    calling = with_own_predictor(SETTINGS)
    async with calling.predictor_at(address) as stub:
        with pytest.raises(kind, match=words) as caught:
            await calling.call(stub.GetPredictor, ASKED, address=address)

    assert f"the predictor at {address}" in str(caught.value)


@pytest.mark.parametrize(
    ("allowed", "address", "may"),
    [
        (None, "localhost:1", True),
        (None, "LOCALHOST:1", True),
        (None, "127.0.0.1:50054", True),
        (None, "[::1]:50054", True),
        (None, "127.0.0.1.example.org:50054", False),
        (None, "localhost.example.org:1", False),
        (None, "10.0.0.1:1", False),
        ("none", "localhost:1", False),
        ("*.studio:50054,a:1", "b.studio:50054", True),
        ("*.studio:50054,a:1", "a:1", True),
        ("*.studio:50054,a:1", "a:11", False),
        ("*.studio:50054,a:1", "b.studio:50055", False),
        ("*.studio:50054,a:1", "b-studio:50054", False),
        ("*:*", "anywhere:1", True),
    ],
)
def test_patterns_say_where_a_run_may_have_its_predictor(
    allowed: str | None, address: str, may: bool
) -> None:
    settings = GatewaySettings(predictor_addresses=allowed) if allowed else GatewaySettings()
    assert settings.allowed_predictors("127.0.0.1")(address) is may


@pytest.mark.parametrize(
    ("bound", "may"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("::", False)],  # noqa: S104
)
def test_a_gateway_that_others_reach_connects_to_no_predictor_beside_it_unless_told(
    bound: str, may: bool
) -> None:
    address = "127.0.0.1:50054"
    assert GatewaySettings().allowed_predictors(bound)(address) is may
    told = GatewaySettings(predictor_addresses="127.0.0.1:*")
    assert told.allowed_predictors(bound)(address)
