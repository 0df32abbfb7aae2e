"""Stage 3: the material's frames into a collection, named by its content."""

from demiurge.gateway.v1.run_record_pb2 import Description, Descriptions, IndexedMaterial
from demiurge.query.v1.query_service_pb2 import (
    CollectionSpec,
    CreateCollectionRequest,
    GetCollectionRequest,
    IndexDescriptorsRequest,
    PublishCollectionRequest,
    Scaling,
)
from google.protobuf.message import Message

from services.errors import NotFoundError
from services.gateway.context import Advance, RunContext
from services.gateway.fan_out import fan_out
from services.gateway.snapshot import digest

# Raised when the same frames should be indexed in another way.
ALGORITHM = 1


def items(context: RunContext) -> int:
    """Sounds that were described."""
    return len(context.output(Descriptions).material)


async def stands(context: RunContext, output: Message) -> bool:
    """Whether the collection is still there, and published."""
    assert isinstance(output, IndexedMaterial)  # noqa: S101 - for the type checker
    query = context.peers.query
    request = GetCollectionRequest(collection_id=output.collection_id)
    try:
        return (await context.peers.call(query.GetCollection, request)).collection.published
    except NotFoundError:
        return False


async def run(context: RunContext, advance: Advance) -> IndexedMaterial:
    """Makes and publishes the collection, or finds it published."""
    peers = context.peers
    descriptions = context.output(Descriptions)
    material = list(descriptions.material)
    spec = collection_spec(context, descriptions)
    name = digest(ALGORITHM, spec, *(each.audio for each in material))[:32]
    created = await peers.call(
        peers.query.CreateCollection, CreateCollectionRequest(collection_id=name, spec=spec)
    )

    async def index(description: Description) -> None:
        request = IndexDescriptorsRequest(
            collection_id=name, source=description.audio, track=description.track
        )
        await peers.call(peers.query.IndexDescriptors, request)

    if created.collection.published:
        advance(len(material), len(material))
    else:
        await fan_out(material, index, concurrency=context.concurrency, advance=advance)
    # Even if it is published: a crash may have come before the store was told so. Runs search
    # exactly, and need no graph.
    publication = PublishCollectionRequest(collection_id=name, skip_graph=True)
    await peers.call(peers.query.PublishCollection, publication)
    return IndexedMaterial(collection_id=name)


def collection_spec(context: RunContext, descriptions: Descriptions) -> CollectionSpec:
    """The specification of the collection that this run needs."""
    first = descriptions.material[0].track
    spec = CollectionSpec(
        feature_names=first.feature_names,
        sample_rate_hertz=first.sample_rate_hertz,
        hop_length_samples=first.hop_length_samples,
        metric=context.spec.matching.metric,
        scaling=context.spec.matching.scaling,
    )
    if spec.scaling == Scaling.SCALING_STANDARDIZED:
        spec.statistics.CopyFrom(descriptions.statistics)
    return spec
