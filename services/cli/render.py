"""`demiurge render`: matched moments joined into a sound."""

from pathlib import Path
from typing import Annotated

import typer

from services.cli.options import (
    MAX_CROSSFADE_MILLISECONDS,
    Encoding,
    Placement,
    duration_message,
    number,
)

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def render(
    matches: Annotated[Path, typer.Argument(help="Match table, from `demiurge match`.")],
    out: Annotated[Path, typer.Option(help="Folder that the piece is put into.")] = Path("piece"),
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
    stdout: Annotated[
        bool,
        typer.Option(
            "--stdout",
            help="Keep nothing, but send the piece to standard output while it is being joined, "
            "as 32-bit float WAV: `… --stdout | ffplay -nodisp -`.",
        ),
    ] = False,
) -> None:
    """Join matched moments into a piece.

    Beside it: where each moment came from (edit_list.json), and a picture of the piece.
    """
    import hashlib
    import sys

    from demiurge.audio.v1.audio_pb2 import MatchTable
    from demiurge.playback.v1 import playback_service_pb2 as pb
    from google.protobuf.json_format import Parse, ParseError

    from services.cli.connection import connect
    from services.cli.files import read_file
    from services.cli.listening import listen
    from services.cli.transfer import download
    from services.errors import InvalidInputError

    content = read_file(matches)
    try:
        table = Parse(content, MatchTable())
    except (ParseError, UnicodeDecodeError) as error:
        raise InvalidInputError(
            f"{matches} is no match table, as `demiurge match` writes it", culprit=str(matches)
        ) from error
    settings = pb.RenderSettings(
        crossfade=duration_message(crossfade / 1000),
        placement=placement.message,
        encoding=encoding.message,
    )
    if stdout:
        with connect("playback") as client:
            streamed = pb.StreamAudioRequest(matches=table, settings=settings)
            listen(client, streamed, sys.stdout.buffer)
        return
    request = pb.RenderAudioRequest(matches=table, settings=settings)
    digest = hashlib.sha256(request.SerializeToString(deterministic=True)).hexdigest()
    request.output_prefix = f"renders/render-{digest[:16]}"
    with connect("playback", "gateway") as client:
        rendered = client.playback.RenderAudio(request)
        for reference in (rendered.audio, rendered.edit_list, rendered.spectrogram):
            download(client, reference, out / reference.key.rpartition("/")[2])
    typer.echo(f"{out}: {rendered.sample_count / rendered.sample_rate_hertz:.2f} s")
