"""`demiurge up`: every service in one process, on one loopback port."""

import typer

app = typer.Typer(add_completion=False)


@app.command()
def up() -> None:
    """Hold every service in one process, until Ctrl-C.

    Other commands find it by themselves and work faster, since nothing has to be started for them.
    The address is DEMIURGE_BIND_ADDRESS:DEMIURGE_PORT, 127.0.0.1:50051 unless set.
    """
    import asyncio

    from services.runtime.settings import NOUNS

    asyncio.run(serve_here(list(NOUNS)))


async def serve_here(nouns: list[str]) -> None:
    """Serves these nouns until told to stop; with the index, tells other commands where."""
    import os

    import orjson

    from services.cli.composition import Ground, build
    from services.cli.connection import UP
    from services.query.settings import QuerySettings
    from services.runtime.logs import configure_logging
    from services.runtime.object_store.opening import open_store
    from services.runtime.server import serve
    from services.runtime.settings import NOUNS, RuntimeSettings, load

    runtime = load(RuntimeSettings)
    configure_logging(runtime)
    ground = Ground(runtime, open_store(runtime.store))
    registrations = [build(noun, ground) for noun in nouns]
    if set(nouns) != set(NOUNS):
        await serve(registrations, runtime)
        return
    ground.own_address = f"127.0.0.1:{runtime.port}"
    notice = load(QuerySettings).folder / UP
    notice.write_bytes(orjson.dumps({"address": ground.own_address, "pid": os.getpid()}))
    try:
        await serve(registrations, runtime)
    finally:
        notice.unlink(missing_ok=True)
