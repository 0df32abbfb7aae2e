"""`demiurge up`: every service in one process, on one loopback port."""

import typer

from services.runtime.settings import RuntimeSettings

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def up() -> None:
    """Hold every service in one process, until Ctrl-C.

    Other commands find it by themselves and work faster, since nothing has to be started for them.
    The address is DEMIURGE_BIND_ADDRESS:DEMIURGE_PORT, 127.0.0.1:50051 unless set. Everything is
    kept in DEMIURGE_HOME, ~/.demiurge unless set.
    """
    import asyncio

    from services.cli.serve import end_when_told

    end_when_told()
    asyncio.run(serve_all())


async def serve_all() -> None:
    """Serves every noun until told to stop, and tells other commands where."""
    from contextlib import ExitStack

    from services.cli.connection import silence_grpc

    silence_grpc()
    from services.cli.composition import build, open_ground
    from services.cli.notice import found, posted
    from services.errors import ConflictError
    from services.query.settings import QuerySettings
    from services.runtime.addresses import authority, loopback_of
    from services.runtime.logs import configure_logging
    from services.runtime.server import serve
    from services.runtime.settings import NOUNS, load
    from services.runtime.tracing import open_tracing

    runtime = load(RuntimeSettings)
    can_call_itself(runtime)
    configure_logging(runtime)
    folder = load(QuerySettings).folder
    running = found(folder, runtime)
    if running and running.lasting:
        raise ConflictError(f"all services run already, at {running.address}")
    tracing = open_tracing(runtime, "up")
    ground = open_ground(runtime, lasting=True, tracing=tracing)
    # The index first: whether it is free is known at once, and the others take seconds to load.
    order = sorted(NOUNS, key=lambda noun: noun != "query")
    registrations = [build(noun, ground) for noun in order]
    with ExitStack() as stack:

        def serving(port: int) -> None:
            ground.own_address = authority(loopback_of(runtime.bind_address), port)
            stack.enter_context(posted(folder, ground.own_address, runtime, lasting=True))

        await serve(registrations, runtime, ground.metrics, serving, tracing=tracing)


def can_call_itself(runtime: RuntimeSettings) -> None:
    """Raises ConfigurationError if the gateway could not call the services beside it."""
    from services.errors import ConfigurationError

    if runtime.tls_certificate and not runtime.tls_ca:
        raise ConfigurationError(
            "DEMIURGE_TLS_CA: set the authority of DEMIURGE_TLS_CERTIFICATE, by which the services "
            "that run together trust each other; the certificate is to name the loopback address",
            culprit="DEMIURGE_TLS_CA",
        )
