"""`demiurge up`: every service in one process, on one loopback port."""

import typer

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def up() -> None:
    """Hold every service in one process, until Ctrl-C.

    Other commands find it by themselves and work faster, since nothing has to be started for them.
    The address is DEMIURGE_BIND_ADDRESS:DEMIURGE_PORT, 127.0.0.1:50051 unless set. Everything is
    kept in DEMIURGE_HOME, ~/.demiurge unless set.
    """
    import asyncio

    from services.runtime.settings import NOUNS

    asyncio.run(serve_here(list(NOUNS)))


async def serve_here(nouns: list[str]) -> None:
    """Serves these nouns until told to stop; with all of them, tells other commands where."""
    from contextlib import ExitStack

    from services.cli.connection import silence_grpc

    silence_grpc()
    from services.cli.composition import Ground, build
    from services.cli.notice import found, posted
    from services.errors import ConflictError
    from services.query.settings import QuerySettings
    from services.runtime.logs import configure_logging
    from services.runtime.object_store.opening import open_store
    from services.runtime.server import serve
    from services.runtime.settings import NOUNS, RuntimeSettings, load

    runtime = load(RuntimeSettings)
    configure_logging(runtime)
    ground = Ground(runtime, open_store(runtime.store))
    if set(nouns) != set(NOUNS):
        for peer in NOUNS if "gateway" in nouns else ():
            if peer not in nouns:
                ground.address_of(peer)
        await serve([build(noun, ground) for noun in nouns], runtime)
        return
    folder = load(QuerySettings).folder
    running = found(folder, runtime)
    if running and running.lasting:
        raise ConflictError(f"all services run already, at {running.address}")
    registrations = [build(noun, ground) for noun in sorted(nouns, key=lambda n: n != "query")]
    with ExitStack() as stack:

        def serving(port: int) -> None:
            ground.own_address = f"{loopback_of(runtime.bind_address)}:{port}"
            stack.enter_context(posted(folder, ground.own_address, runtime, lasting=True))

        await serve(registrations, runtime, serving)


def loopback_of(bind_address: str) -> str:
    """The host by which this machine reaches a server bound to that address."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(bind_address, bind_address)  # noqa: S104
    return f"[{host}]" if ":" in host else host
