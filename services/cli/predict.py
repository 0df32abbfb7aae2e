"""`demiurge predict`: how a sound's timbre goes on."""

from pathlib import Path
from typing import Annotated

import typer

from services.cli.options import MAX_SEED, MAX_STEPS, address, number

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def predict(
    descriptors: Annotated[
        Path, typer.Argument(help="Descriptor file, as `demiurge extract` writes it.")
    ],
    predictor: Annotated[str, typer.Option(help="Id of the predictor (see `demiurge models`).")],
    out: Annotated[Path, typer.Option(help="Descriptor file to write.")] = Path("predicted.json"),
    steps: Annotated[int, typer.Option(min=1, max=MAX_STEPS, help="Frames to predict.")] = 500,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Where chance comes from.")] = 0,
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
        typer.Option(callback=address, help="host:port of somebody's predictor to ask instead."),
    ] = "",
) -> None:
    """Continue descriptors from where they end.

    Each sound in the file is continued by itself, by chances that follow from its name and the
    seed.
    """
    from demiurge.predictor.v1 import predictor_service_pb2 as pb

    from services.audio.track_json import write_tracks
    from services.cli.connection import connect
    from services.cli.files import read_descriptors, write_whole
    from services.cli.progress import Progress
    from services.gateway.stages.generate import item_seed
    from services.gateway.stages.predict import checked
    from services.runtime.messages import track_to_message

    tracks = read_descriptors(descriptors)
    continued = []
    connected = connect("predictor", predictor_address=predictor_address)
    with Progress() as progress, connected as client:
        request = pb.GetPredictorRequest(predictor_id=predictor)
        known = client.predictor.GetPredictor(request).predictor
        if temperature is None:
            temperature = float(known.stochastic)
        for track in tracks:
            window = track.last(known.window_frames)
            answer = client.predictor.PredictDescriptors(
                pb.PredictDescriptorsRequest(
                    predictor_id=known.version_id or predictor,
                    window=track_to_message(window),
                    steps=steps,
                    # As in runs: sounds that end alike go on each by chances of their own.
                    seed=item_seed(seed, "predict", track.source),
                    temperature=temperature,
                )
            )
            continued.append(checked(answer, window, steps, known.version_id))
            progress.update("predicting", len(continued), len(tracks))
    write_whole(out, write_tracks(continued, predictor=known.version_id or predictor))
    typer.echo(str(out))
