"""`demiurge generate`: new sounds from trained models."""

from pathlib import Path
from typing import Annotated

import typer

from services.cli.options import MAX_FILES, MAX_SEED, MAX_SOUND_SECONDS, number

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
) -> None:
    """Sing new sounds with trained models.

    The same seed sings the same sound.
    """
    from demiurge.synth.v1.synth_service_pb2 import GenerateAudioRequest

    from services.cli.connection import connect
    from services.cli.options import duration_message
    from services.cli.progress import Progress
    from services.cli.transfer import download

    database = database or f"generated-{unagan}-{melgan}".replace("@", "-")
    with Progress() as progress, connect("synth", "gateway") as client:
        for index in range(files):
            of_file = (seed + index) % (MAX_SEED + 1)
            # What a file holds is in its name, so that a name never asks for two contents.
            name = f"seed-{of_file}-{duration:g}s.wav"
            request = GenerateAudioRequest(
                unagan_model_id=unagan,
                melgan_model_id=melgan,
                duration=duration_message(duration),
                seed=of_file,
                output_key=f"audio/{database}/{name}",
            )
            audio = client.synth.GenerateAudio(request).audio
            download(client, audio, out / name)
            progress.update("generating", index + 1, files)
    typer.echo(str(out))
