"""`demiurge match`: the nearest moments of a collection."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, rich_markup_mode=None)

# 39 features of 4 bytes: well below the 1 MiB that a message holds inline.
FRAMES_A_CALL = 4096


@app.command()
def match(
    descriptors: Annotated[
        Path, typer.Argument(help="Descriptor file, from `demiurge predict` or `extract`.")
    ],
    collection: Annotated[str, typer.Option(help="Collection, from `demiurge index`.")],
    out: Annotated[Path, typer.Option(help="Match table to write, as JSON.")] = Path(
        "matches.json"
    ),
    neighbors: Annotated[int, typer.Option(min=1, max=1000, help="Moments per frame.")] = 1,
    approximate: Annotated[
        bool, typer.Option("--approximate", help="Search by HNSW: faster, not always the nearest.")
    ] = False,
) -> None:
    """Find the nearest moments for each frame.

    The frames are those of a descriptor file, the moments those of a collection.
    """
    from demiurge.query.v1 import query_service_pb2 as pb
    from google.protobuf.json_format import MessageToJson

    from services.audio.match_table import MatchTable
    from services.cli.connection import connect
    from services.cli.files import read_descriptors, write_whole
    from services.cli.progress import Progress
    from services.runtime.messages import (
        match_table_from_message,
        match_table_to_message,
        track_to_message,
    )

    blocks = [
        block for track in read_descriptors(descriptors) for block in track.blocks(FRAMES_A_CALL)
    ]
    mode = pb.SEARCH_MODE_APPROXIMATE if approximate else pb.SEARCH_MODE_EXACT
    tables = []
    with Progress() as progress, connect("query") as client:
        for block in blocks:
            answer = client.query.MatchDescriptors(
                pb.MatchDescriptorsRequest(
                    collection_id=collection,
                    track=track_to_message(block),
                    neighbors=neighbors,
                    search_mode=mode,
                )
            )
            tables.append(match_table_from_message(answer.matches))
            progress.update("matching", len(tables), len(blocks))
    table = match_table_to_message(MatchTable.joined(tables))
    write_whole(out, MessageToJson(table, preserving_proto_field_name=True).encode())
    typer.echo(str(out))
