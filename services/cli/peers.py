"""The doctor's look at services elsewhere: who is ready at the addresses that are set."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from services.cli.finding import Finding

if TYPE_CHECKING:
    from services.runtime.settings import RuntimeSettings

PATIENCE_SECONDS = 5.0


def look(runtime: "RuntimeSettings") -> Iterator[Finding]:
    """One finding for each noun whose address is set."""
    from services.runtime.settings import NOUNS, RuntimeSettings, variable_of

    for noun in NOUNS:
        if runtime.address_of(noun):
            variable = variable_of(RuntimeSettings, runtime.address_field_of(noun))
            yield _ready(noun, runtime, variable)


def _ready(noun: str, runtime: "RuntimeSettings", variable: str) -> Finding:
    from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
    from grpc_health.v1.health_pb2_grpc import HealthStub

    from services.errors import DemiurgeError
    from services.runtime.channels import open_blocking_channel
    from services.runtime.health import READINESS
    from services.runtime.status import remote_errors

    address = runtime.address_of(noun)
    try:
        with remote_errors(), open_blocking_channel(address, runtime, noun=noun) as channel:
            check = HealthCheckRequest(service=READINESS)
            # Of all services at one address, the one that is meant: see deploy/envoy/http.yaml.
            meant = (("x-demiurge-noun", noun),)
            answer = HealthStub(channel).Check(check, timeout=PATIENCE_SECONDS, metadata=meant)
            status = answer.status
    except DemiurgeError as error:
        mend = f"see that `demiurge serve {noun}` runs there, or mend {variable}"
        return Finding(noun, f"{address}: {error.message}", mend)
    if status == HealthCheckResponse.SERVING:
        return Finding(noun, f"{address}, ready")
    return Finding(noun, f"{address}: alive, but not ready", "wait, or look at its log")
