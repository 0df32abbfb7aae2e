"""`demiurge run`: from recordings to a new piece."""

import math
from pathlib import Path
from typing import Annotated

import typer

from services.audio.published import PUBLISHED_HOP_LENGTH_SAMPLES, PUBLISHED_SAMPLE_RATE_HERTZ
from services.cli.options import (
    MAX_CROSSFADE_MILLISECONDS,
    MAX_FILES,
    MAX_FRAMES,
    MAX_SEED,
    MAX_SOUND_SECONDS,
    Encoding,
    Metric,
    Placement,
    Scaling,
    address,
    duration_message,
    number,
)

PUBLISHED_FRAMES_PER_SECOND = PUBLISHED_SAMPLE_RATE_HERTZ / PUBLISHED_HOP_LENGTH_SAMPLES
MAX_PIECE_SECONDS = int(MAX_FRAMES / PUBLISHED_FRAMES_PER_SECOND)

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def run(
    prediction: Annotated[
        Path, typer.Option(help="Folder of recordings whose course in time the piece follows.")
    ],
    recorded: Annotated[
        Path | None,
        typer.Option(help="Folder of recordings whose sound the piece is made of."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder that the piece is put into.")] = Path("piece"),
    duration: Annotated[
        float,
        typer.Option(min=0.1, max=MAX_PIECE_SECONDS, callback=number, help="Seconds of the piece."),
    ] = 20.0,
    seed: Annotated[
        int,
        typer.Option(
            min=0, max=MAX_SEED, help="The same seed makes the same piece; another, another."
        ),
    ] = 0,
    unagan: Annotated[
        str, typer.Option(help="Id of a trained UNAGAN; without one, one is trained first.")
    ] = "",
    melgan: Annotated[
        str, typer.Option(help="Id of a trained MelGAN; without one, one is trained first.")
    ] = "",
    predictor: Annotated[
        str, typer.Option(help="Id of a trained predictor; without one, one is trained first.")
    ] = "",
    direct: Annotated[
        bool,
        typer.Option(
            "--direct",
            help="Take moments from the recordings themselves instead of generated sound.",
        ),
    ] = False,
    files: Annotated[int, typer.Option(min=1, max=MAX_FILES, help="Sounds to generate.")] = 24,
    file_duration: Annotated[
        float,
        typer.Option(
            min=0.1, max=MAX_SOUND_SECONDS, callback=number, help="Seconds of each generated sound."
        ),
    ] = 4.0,
    preset: Annotated[
        str, typer.Option(help="How models are trained where none are given.")
    ] = "demo-cpu",
    metric: Annotated[
        Metric, typer.Option(help="How the nearest moment is found.")
    ] = Metric.EUCLIDEAN,
    scaling: Annotated[
        Scaling,
        typer.Option(help="standardized: every feature counts alike; none: loudness counts most."),
    ] = Scaling.STANDARDIZED,
    crossfade: Annotated[
        float,
        typer.Option(
            min=0,
            max=MAX_CROSSFADE_MILLISECONDS,
            callback=number,
            help="Milliseconds of the fade between moments.",
        ),
    ] = 22.0,
    placement: Annotated[
        Placement, typer.Option(help="Which samples stand for a moment: from it on, or around it.")
    ] = Placement.PUBLISHED,
    encoding: Annotated[Encoding, typer.Option(help="Kind of file.")] = Encoding.WAV_PCM16,
    temperature: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=10,
            callback=number,
            help="How freely a stochastic predictor goes on; unless given, 1 for those.",
        ),
    ] = None,
    predictor_address: Annotated[
        str,
        typer.Option(
            callback=address,
            help="host:port, as the gateway reaches it, of somebody's predictor for this piece.",
        ),
    ] = "",
) -> None:
    """From recordings to a new piece.

    Give a folder of recordings whose sound you like, and one whose course in time the piece shall
    follow. Small models are trained first where you give none (minutes); the same call again finds
    them. What is ready after an interruption is found, too.
    """
    from demiurge.gateway.v1 import gateway_service_pb2 as pb
    from demiurge.playback.v1.playback_service_pb2 import RenderSettings

    from services.cli.beforehand import (
        check_models,
        check_output,
        check_recordings,
        refuse_training_for,
    )
    from services.cli.connection import connect
    from services.cli.following import fetch, follow
    from services.cli.progress import Progress
    from services.cli.training.crew import train_all
    from services.cli.training.order import Order
    from services.cli.transfer import upload
    from services.errors import InvalidInputError
    from services.runtime.settings import RuntimeSettings, load

    runtime = load(RuntimeSettings)
    elsewhere = runtime.address_of("gateway")
    ids = {"predictor": predictor}
    if not direct:
        ids |= {"melgan": melgan, "unagan": unagan}
    missing = [family for family, model_id in ids.items() if not model_id]
    if elsewhere and missing:
        raise refuse_training_for(runtime, missing)
    if predictor_address and not predictor:
        raise InvalidInputError("give --predictor, the id of one at --predictor-address")
    if recorded is None and direct:
        raise InvalidInputError("--direct takes moments from recordings: give --recorded FOLDER")
    if recorded is None and not (unagan and melgan):
        raise InvalidInputError("give --recorded FOLDER, or the ids of --unagan and --melgan")
    check_recordings("--prediction", prediction)
    if recorded is not None:
        check_recordings("--recorded", recorded)
    check_output("--out", out)
    given = {family: model_id for family, model_id in ids.items() if model_id}
    check_models(given, runtime, predictor_address)
    folders = {"predictor": prediction, "melgan": recorded, "unagan": recorded}
    orders = [
        Order(family, folder, preset, seed)
        for family in missing
        if (folder := folders[family]) is not None
    ]
    spec = pb.RunSpec(
        prediction=pb.Prediction(
            frame_count=math.ceil(duration * PUBLISHED_FRAMES_PER_SECOND),
            predictor_address=predictor_address,
            temperature=temperature,
        ),
        matching=pb.Matching(metric=metric.message, scaling=scaling.message),
        render=RenderSettings(
            crossfade=duration_message(crossfade / 1000),
            placement=placement.message,
            encoding=encoding.message,
        ),
        seed=seed,
    )
    length = duration_message(file_duration)
    with Progress() as progress:
        trained = train_all(orders, progress)
        # A gateway elsewhere has all others beside it: then nothing needs to be started here.
        with connect(*(["gateway"] if elsewhere else [])) as client:
            spec.prediction.predictor_id = predictor or trained["predictor"]
            spec.prediction.database = upload(client, prediction, progress).name
            if direct and recorded is not None:
                spec.database = upload(client, recorded, progress).name
            else:
                spec.generation.unagan_model_id = unagan or trained["unagan"]
                spec.generation.melgan_model_id = melgan or trained["melgan"]
                spec.generation.file_count = files
                spec.generation.duration.CopyFrom(length)
            fetch(client, follow(client, spec, progress), out, progress)
