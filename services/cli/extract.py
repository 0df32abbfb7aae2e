"""`demiurge extract`: sounds described as MFCC sequences."""

from pathlib import Path
from typing import Annotated

import typer

from services.audio.published import PUBLISHED_HOP_LENGTH_SAMPLES, PUBLISHED_SAMPLE_RATE_HERTZ

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def extract(
    folder: Annotated[Path, typer.Argument(help="Folder of sounds.")],
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
) -> None:
    """Describe every sound of a folder, a JSON file each.

    A frame has 39 features: 13 MFCCs, how they change, and how that changes. A sound that cannot
    be read is named, and the rest goes on.
    """
    from demiurge.descriptor.v1.descriptor_service_pb2 import ExtractionSettings

    from services.cli.connection import connect
    from services.cli.description import describe
    from services.cli.progress import Progress
    from services.cli.transfer import download

    settings = ExtractionSettings(sample_rate_hertz=sample_rate, hop_length_samples=hop_length)
    with Progress() as progress, connect("descriptor", "gateway") as client:
        for described in describe(client, folder, settings, progress):
            if described.answer.deltas_are_zero:
                progress.say(f"{described.name} is too short for deltas: they are zero")
            download(client, described.answer.object, out / f"{described.name}.json")
    typer.echo(str(out))
