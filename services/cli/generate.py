"""`demiurge generate`: new sounds from trained models."""

from pathlib import Path
from typing import Annotated

import typer

from services.cli.options import MAX_FILES, MAX_SEED, MAX_SOUND_SECONDS, number
from services.cli.shard import WHOLE, Shard
from services.cli.shard import shard as as_shard

MAX_BATCH = 256
MAX_CALLS = 64

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def generate(
    unagan: Annotated[str, typer.Option(help="Id of the UNAGAN model (see `demiurge models`).")],
    melgan: Annotated[str, typer.Option(help="Id of the MelGAN model.")],
    out: Annotated[Path, typer.Option(help="Folder for the sounds.")] = Path("generated"),
    files: Annotated[int, typer.Option(min=1, max=MAX_FILES, help="Sounds to generate.")] = 1,
    duration: Annotated[
        float,
        typer.Option(min=0.1, max=MAX_SOUND_SECONDS, callback=number, help="Seconds of each."),
    ] = 4.0,
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED, help="Seed of the first; the others follow.")
    ] = 0,
    database: Annotated[
        str, typer.Option(help="Audio database to keep them in; named by models if not given.")
    ] = "",
    batch: Annotated[
        int,
        typer.Option(
            min=1,
            max=MAX_BATCH,
            help="Sounds in one pass, fewer where the service makes no more seconds at once: "
            "faster for many, and a sample may differ by its last bit.",
        ),
    ] = 1,
    calls: Annotated[
        int,
        typer.Option(min=1, max=MAX_CALLS, help="Calls at once: more keep more replicas at work."),
    ] = 4,
    shard: Annotated[
        Shard | None,
        typer.Option(
            parser=as_shard,
            metavar="I/N",
            help="Only share I of N, from 0, of the sounds: for N processes that make all of them.",
        ),
    ] = None,
    fetch: Annotated[
        bool,
        typer.Option(help="Whether to fetch them into --out, or leave them in the store alone."),
    ] = True,
) -> None:
    """Sing new sounds with trained models.

    The same seed sings the same sound. Called again, it sings only what is missing.
    """
    from services.cli.beforehand import check_output
    from services.cli.bulk import Order, generate_all
    from services.cli.connection import connect
    from services.cli.progress import Progress

    if fetch:
        check_output("--out", out)
    order = Order(
        unagan=unagan,
        melgan=melgan,
        seconds=duration,
        database=database or f"generated-{unagan}-{melgan}".replace("@", "-"),
        seeds=[(seed + index) % (MAX_SEED + 1) for index in range(files)],
    )
    with Progress() as progress, connect("synth", "gateway") as client:
        generate_all(
            client,
            order,
            out if fetch else None,
            progress,
            batch=batch,
            calls=calls,
            shard=shard or WHOLE,
        )
    typer.echo(str(out) if fetch else f"audio/{order.database}")
