"""`demiurge health`: is the service in this container ready, by its own word?

Asked every few seconds beside the service itself, so it starts without the settings of the others.
"""

import os
from typing import Annotated

import typer

from services.errors import ConfigurationError, UnavailableError
from services.runtime.addresses import authority, loopback_of

PATIENCE_SECONDS = 3.0

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def health(
    service: Annotated[
        str,
        typer.Option(help="readiness, liveness, or a service by its full name in the contract."),
    ] = "readiness",
    port: Annotated[
        int | None,
        typer.Option(envvar="DEMIURGE_HEALTH_PORT", help="Where the service answers probes."),
    ] = None,
) -> None:
    """Ask the service on this machine how it is: exit code 0 if it serves, 1 if not."""
    if not port:
        raise ConfigurationError(
            "DEMIURGE_HEALTH_PORT: set it to the port on which the service answers health checks",
            culprit="DEMIURGE_HEALTH_PORT",
        )
    host = loopback_of(os.environ.get("DEMIURGE_BIND_ADDRESS") or "127.0.0.1")
    state = asked(authority(host, port), service)
    if state != "SERVING":
        raise UnavailableError(f"{service}: {state}", culprit=service)
    typer.echo(f"{service}: {state}")


def asked(address: str, service: str) -> str:
    """What the service at host:port says of itself, as the health protocol names it.

    Raises UnavailableError if nothing answers within three seconds, or knows no such service.
    """
    # gRPC's own words would be more lines than the answer.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    options = [("grpc.enable_http_proxy", 0), ("grpc.enable_retries", 0)]
    with grpc.insecure_channel(address, options) as channel:
        request = health_pb2.HealthCheckRequest(service=service)
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=PATIENCE_SECONDS)
        except grpc.RpcError as error:
            unknown = error.code() == grpc.StatusCode.NOT_FOUND
            reason = "no such service" if unknown else f"no answer, {error.code().name}"
            raise UnavailableError(f"{service} at {address}: {reason}", culprit=service) from None
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
