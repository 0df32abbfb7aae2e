"""`demiurge index`: a folder's sounds as a collection that can be matched against."""

import re
from pathlib import Path
from typing import Annotated

import typer

from services.cli.options import Metric, Scaling

# As the contract has it.
COLLECTION_NAME = "[A-Za-z0-9][A-Za-z0-9._-]{0,127}"

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def index(
    folder: Annotated[Path, typer.Argument(help="Folder of sounds.")],
    collection: Annotated[str, typer.Option(help="Name to find it by; moved if it is taken.")],
    metric: Annotated[Metric, typer.Option(help="How distances are taken.")] = Metric.EUCLIDEAN,
    scaling: Annotated[
        Scaling,
        typer.Option(help="standardized: every feature counts alike; none: loudness counts most."),
    ] = Scaling.STANDARDIZED,
) -> None:
    """Put a folder's sounds into a collection.

    A new collection is built beside the one that has the name, which then moves to the new one.
    """
    import hashlib

    from demiurge.descriptor.v1.descriptor_service_pb2 import ExtractionSettings
    from demiurge.query.v1 import query_service_pb2 as pb

    from services.cli.connection import connect
    from services.cli.description import describe
    from services.cli.progress import Progress
    from services.cli.transfer import upload
    from services.errors import InvalidInputError
    from services.runtime.messages import statistics_from_message, statistics_to_message

    # Known before minutes go into describing sounds.
    if not re.fullmatch(COLLECTION_NAME, collection):
        raise InvalidInputError(
            f"--collection {collection!r}: use letters, digits, '.', '_' and '-', beginning with "
            "a letter or digit",
            culprit="--collection",
        )
    with Progress() as progress, connect("descriptor", "query", "gateway") as client:
        files = upload(client, folder, progress).files
        described = list(describe(client, files, ExtractionSettings(), progress, place=str(folder)))
        statistics = statistics_from_message(described[0].answer.statistics)
        for each in described[1:]:
            statistics = statistics.merged(statistics_from_message(each.answer.statistics))
        track = described[0].answer.track
        spec = pb.CollectionSpec(
            feature_names=track.feature_names,
            sample_rate_hertz=track.sample_rate_hertz,
            hop_length_samples=track.hop_length_samples,
            metric=metric.message,
            scaling=scaling.message,
        )
        if scaling is Scaling.STANDARDIZED:
            spec.statistics.CopyFrom(statistics_to_message(statistics))
        content = hashlib.sha256(spec.SerializeToString(deterministic=True))
        for each in described:
            content.update(each.audio.SerializeToString(deterministic=True))
        name = content.hexdigest()[:32]
        client.query.CreateCollection(pb.CreateCollectionRequest(collection_id=name, spec=spec))
        for count, each in enumerate(described, start=1):
            request = pb.IndexDescriptorsRequest(
                collection_id=name, source=each.audio, track=each.answer.track
            )
            # By reference: what is sent along would be stored a second time.
            request.track.object.CopyFrom(each.answer.object)
            client.query.IndexDescriptors(request)
            progress.update("indexing", count, len(described))
        published = client.query.PublishCollection(
            pb.PublishCollectionRequest(collection_id=name, alias=collection)
        ).collection
    typer.echo(f"{collection}: {published.point_count} frames of {published.source_count} sounds")
