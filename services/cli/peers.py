"""The doctor's look at services elsewhere: who is ready, takes the token, and has which models."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from services.cli.finding import Finding

if TYPE_CHECKING:
    import grpc

    from services.errors import DemiurgeError
    from services.runtime.settings import RuntimeSettings

PATIENCE_SECONDS = 5.0
ANSWER_SECONDS = 30.0
# Those with a question that costs next to nothing; the gateway first, whom everybody calls.
_ASKED = ("gateway", "synth", "predictor", "query")


def look(runtime: "RuntimeSettings") -> Iterator[Finding]:
    """One finding for each noun whose address is set, and one of the token."""
    from services.runtime.settings import NOUNS

    ready = []
    for noun in NOUNS:
        if runtime.address_of(noun):
            finding = _ready(noun, runtime)
            if not finding.mend:
                ready.append(noun)
            yield finding
    yield from _tokens(ready, runtime)


def counted(runtime: "RuntimeSettings") -> Counter[str]:
    """Models by family, as the services list them whose address is set; blocking.

    A family that such a service has none of counts 0. Raises what the services raise.
    """
    from demiurge.synth.v1.synth_service_pb2 import ModelFamily

    counts: Counter[str] = Counter()
    if runtime.address_of("synth"):
        counts.update(melgan=0, unagan=0)
        for page in _pages("synth", runtime):
            names = (ModelFamily.Name(model.family) for model in page.models)
            counts.update(name.removeprefix("MODEL_FAMILY_").lower() for name in names)
    if runtime.address_of("predictor"):
        counts["predictor"] = sum(len(page.predictors) for page in _pages("predictor", runtime))
    return counts


def _pages(noun: str, runtime: "RuntimeSettings") -> Iterator[Any]:
    with _channel(noun, runtime) as channel:
        token = ""
        while True:
            page = _question(noun, channel)(page_token=token)
            yield page
            token = page.next_page_token
            if not token:
                return


@contextmanager
def _channel(noun: str, runtime: "RuntimeSettings") -> "Iterator[grpc.Channel]":
    from services.runtime.channels import open_blocking_channel
    from services.runtime.status import remote_errors

    address = runtime.address_of(noun)
    with remote_errors(), open_blocking_channel(address, runtime, noun=noun) as channel:
        yield channel


def _question(noun: str, channel: "grpc.Channel") -> Callable[..., Any]:
    """The list that the service has, by `page_size` and `page_token`."""
    from demiurge.gateway.v1 import gateway_service_pb2, gateway_service_pb2_grpc
    from demiurge.predictor.v1 import predictor_service_pb2, predictor_service_pb2_grpc
    from demiurge.query.v1 import query_service_pb2, query_service_pb2_grpc
    from demiurge.synth.v1 import synth_service_pb2, synth_service_pb2_grpc

    ask: Any
    request: Any
    match noun:
        case "gateway":
            ask = gateway_service_pb2_grpc.PipelineServiceStub(channel).ListRuns
            request = gateway_service_pb2.ListRunsRequest
        case "synth":
            ask = synth_service_pb2_grpc.SynthServiceStub(channel).ListModels
            request = synth_service_pb2.ListModelsRequest
        case "predictor":
            ask = predictor_service_pb2_grpc.PredictorServiceStub(channel).ListPredictors
            request = predictor_service_pb2.ListPredictorsRequest
        case _:
            ask = query_service_pb2_grpc.QueryServiceStub(channel).ListCollections
            request = query_service_pb2.ListCollectionsRequest
    return lambda **fields: ask(request(**fields), timeout=ANSWER_SECONDS)


def _tokens(ready: list[str], runtime: "RuntimeSettings") -> Iterator[Finding]:
    """Whether the token is taken; health, which is asked without, does not tell.

    One address is asked once for each token.
    """
    from services.errors import DemiurgeError

    places: dict[tuple[str, str], str] = {}
    for noun in _ASKED:
        if noun in ready:
            places.setdefault((runtime.address_of(noun), runtime.token_field_of(noun)), noun)
    taking = []
    for (_, field), noun in places.items():
        try:
            with _channel(noun, runtime) as channel:
                _question(noun, channel)(page_size=1)
        except DemiurgeError as error:
            yield _refused(noun, field, error)
        else:
            taking.append(noun)
    if taking:
        some = any(getattr(runtime, field) for _, field in places)
        said = "taken by" if some else "none is set, and none asked for by"
        yield Finding("token", f"{said} {', '.join(taking)}")


def _refused(noun: str, field: str, error: "DemiurgeError") -> Finding:
    from services.errors import UnauthenticatedError
    from services.runtime.settings import RuntimeSettings, variable_of

    mend = "look at its log"
    if isinstance(error, UnauthenticatedError):
        # What a service itself is refused has a culprit of its own.
        variable = variable_of(RuntimeSettings, field)
        mend = f"let {variable} name a file with the token that {noun} was given"
        if error.culprit:
            mend = f"mend {error.culprit}"
    return Finding("token", f"{noun}: {error.message}", mend)


def _ready(noun: str, runtime: "RuntimeSettings") -> Finding:
    from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
    from grpc_health.v1.health_pb2_grpc import HealthStub

    from services.errors import ConfigurationError, DemiurgeError
    from services.runtime.health import READINESS
    from services.runtime.settings import RuntimeSettings, variable_of

    address = runtime.address_of(noun)
    try:
        with _channel(noun, runtime) as channel:
            check = HealthCheckRequest(service=READINESS)
            # Of all services at one address, the one that is meant: see deploy/envoy/http.yaml.
            meant = (("x-demiurge-noun", noun),)
            answer = HealthStub(channel).Check(check, timeout=PATIENCE_SECONDS, metadata=meant)
            status = answer.status
    except ConfigurationError as error:
        return Finding(noun, f"{address}: {error.message}", f"mend or unset {error.culprit}")
    except DemiurgeError as error:
        variable = variable_of(RuntimeSettings, runtime.address_field_of(noun))
        mend = f"see that `demiurge serve {noun}` runs there, or mend {variable}"
        if not runtime.tls_ca:
            mend += "; if it speaks TLS, set DEMIURGE_TLS_CA"
        return Finding(noun, f"{address}: {error.message}", mend)
    if status == HealthCheckResponse.SERVING:
        return Finding(noun, f"{address}, ready")
    return Finding(noun, f"{address}: alive, but not ready", "wait, or look at its log")
