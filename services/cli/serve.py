"""`demiurge serve <noun>`: one service, for a cluster."""

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
    import asyncio

    from services.cli.up import serve_here
    from services.errors import NotFoundError
    from services.runtime.settings import NOUNS

    if noun not in NOUNS:
        raise NotFoundError(f"no service {noun!r}; there are {', '.join(NOUNS)}", culprit=noun)
    asyncio.run(serve_here([noun]))
