"""`demiurge extract`: sounds described as MFCC sequences."""

from pathlib import Path
from typing import Annotated

import typer

from services.audio.published import PUBLISHED_HOP_LENGTH_SAMPLES, PUBLISHED_SAMPLE_RATE_HERTZ
from services.cli.shard import WHOLE, Shard
from services.cli.shard import shard as as_shard

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def extract(
    folder: Annotated[Path | None, typer.Argument(help="Folder of sounds.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the descriptor files.")] = Path(
        "descriptors"
    ),
    sample_rate: Annotated[
        int,
        typer.Option(
            "--sample-rate", "--sr", min=8000, max=192_000, help="Rate to describe at, in Hz."
        ),
    ] = PUBLISHED_SAMPLE_RATE_HERTZ,
    hop_length: Annotated[
        int, typer.Option(min=64, max=65_536, help="Samples from frame to frame.")
    ] = PUBLISHED_HOP_LENGTH_SAMPLES,
    database: Annotated[
        str, typer.Option(help="Instead of a folder: an audio database of the store.")
    ] = "",
    shard: Annotated[
        Shard | None,
        typer.Option(
            parser=as_shard,
            metavar="I/N",
            help="Only share I of N, from 0, of the sounds: for N processes that describe all.",
        ),
    ] = None,
    fetch: Annotated[
        bool,
        typer.Option(help="Whether to fetch the files into --out, or leave them in the store."),
    ] = True,
) -> None:
    """Describe every sound of a folder or an audio database, a JSON file each.

    A frame has 39 features: 13 MFCCs, how they change, and how that changes. A sound that cannot
    be read is named, and the rest goes on.
    """
    from demiurge.descriptor.v1.descriptor_service_pb2 import ExtractionSettings

    from services.cli.connection import connect
    from services.cli.description import describe
    from services.cli.progress import Progress
    from services.cli.transfer import download, stored, upload
    from services.errors import InvalidInputError

    if (folder is None) != bool(database):
        raise InvalidInputError(
            "give a folder or --database NAME, one of them", culprit="--database"
        )
    part, place = shard or WHOLE, database or str(folder)
    settings = ExtractionSettings(sample_rate_hertz=sample_rate, hop_length_samples=hop_length)
    with Progress() as progress, connect("descriptor", "gateway") as client:
        files = (
            upload(client, folder, progress, part) if folder else stored(client, database, part)
        ).files
        # Of a share, the others may have what can be described.
        whole = "" if part != WHOLE else place
        for described in describe(client, files, settings, progress, place=whole):
            if described.answer.deltas_are_zero:
                progress.say(f"{described.name} is too short for deltas: they are zero")
            if fetch:
                download(client, described.answer.object, out / f"{described.name}.json")
    typer.echo(str(out) if fetch else "descriptors")
