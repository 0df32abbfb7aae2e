"""`demiurge serve <noun>`: one service, for a cluster."""

import os
import signal
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def serve(
    noun: Annotated[
        str, typer.Argument(help="synth, descriptor, predictor, query, playback or gateway.")
    ],
) -> None:
    """Serve one service, for a cluster.

    Told to stop (SIGTERM, Ctrl-C), it finishes what is under way. Settings come from the
    environment: DEMIURGE_BIND_ADDRESS, DEMIURGE_PORT, DEMIURGE_STORE and those of the noun. The
    gateway also needs the addresses of the others: DEMIURGE_SYNTH_ADDRESS and so on.
    """
    end_when_told()
    import asyncio

    from services.errors import NotFoundError
    from services.runtime.settings import NOUNS

    if noun not in NOUNS:
        raise NotFoundError(f"no service {noun!r}; there are {', '.join(NOUNS)}", culprit=noun)
    asyncio.run(serve_one(noun))


def end_when_told() -> None:
    """SIGTERM ends the process, until the server that is loading listens for it itself.

    By default a container's first process would ignore it, and be killed only after the grace
    period. Nothing is under way yet that could be lost.
    """
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))


async def serve_one(noun: str) -> None:
    """Serves this noun until told to stop."""
    from services.cli.connection import silence_grpc

    silence_grpc()
    from services.cli.composition import build, open_ground
    from services.runtime.logs import configure_logging
    from services.runtime.server import serve
    from services.runtime.settings import NOUNS, RuntimeSettings, load
    from services.runtime.tracing import open_tracing

    runtime = load(RuntimeSettings)
    configure_logging(runtime)
    tracing = open_tracing(runtime, noun)
    ground = open_ground(runtime, lasting=True, tracing=tracing)
    if noun == "gateway":
        # An address that is missing is better known before the first run.
        for peer in NOUNS:
            if peer != noun:
                ground.address_of(peer)
    await serve([build(noun, ground)], runtime, ground.metrics, tracing=tracing)
