"""Stage 2: descriptors of the material (DESCRIPTOR DB I) and of the sounds to continue (DB II)."""

from dataclasses import dataclass

from demiurge.audio.v1.audio_pb2 import ObjectRef
from demiurge.descriptor.v1.descriptor_service_pb2 import ExtractDescriptorsRequest
from demiurge.gateway.v1.gateway_service_pb2 import SkippedItem
from demiurge.gateway.v1.run_record_pb2 import Description, Descriptions, Material

from services.audio.statistics import FeatureStatistics
from services.errors import InvalidInputError
from services.gateway.context import Advance, RunContext
from services.gateway.fan_out import fan_out
from services.runtime.messages import statistics_from_message, statistics_to_message


@dataclass(frozen=True)
class Described:
    """One answer: a description with its moments, or why there is none."""

    description: Description
    statistics: FeatureStatistics | None = None
    skipped: SkippedItem | None = None


def items(context: RunContext) -> int:
    """Sounds, each once, the skipped ones among them."""
    found = context.output(Descriptions)
    described = {each.audio.key for each in (*found.material, *found.prediction)}
    return len(described) + len(found.skipped)


async def run(context: RunContext, advance: Advance) -> Descriptions:
    """Describes every file; one that cannot be read is skipped by name, and the rest goes on.

    Raises InvalidInputError if nothing is left of the material or of the sounds to continue.
    """
    peers = context.peers
    material = list(context.output(Material).audio)
    prediction = list(context.snapshot.prediction)

    async def describe(audio: ObjectRef) -> Described:
        request = ExtractDescriptorsRequest(audio=audio, settings=context.spec.extraction)
        description = Description(audio=audio)
        try:
            response = await peers.call(peers.descriptor.ExtractDescriptors, request)
        except InvalidInputError as error:
            return Described(description, skipped=SkippedItem(key=audio.key, reason=error.message))
        # By reference: a database's descriptors together may not fit into memory or a message.
        description.track.CopyFrom(response.track)
        description.track.object.CopyFrom(response.object)
        return Described(description, statistics_from_message(response.statistics))

    # A sound may be material and be continued too.
    audio = {each.key: each for each in (*material, *prediction)}
    described = await fan_out(
        list(audio.values()), describe, concurrency=context.concurrency, advance=advance
    )
    by_key = dict(zip(audio, described, strict=True))
    of_material = [by_key[each.key] for each in material]
    of_prediction = [by_key[each.key] for each in prediction]
    descriptions = Descriptions(
        material=usable(of_material, "the material"),
        prediction=usable(of_prediction, "the sounds to continue"),
        skipped=[each.skipped for each in described if each.skipped],
    )
    descriptions.statistics.CopyFrom(statistics_to_message(merged(of_material)))
    return descriptions


def usable(described: list[Described], what: str) -> list[Description]:
    """The descriptions there are; InvalidInputError, with the first reason, if there are none."""
    found = [each.description for each in described if not each.skipped]
    if not found:
        first = next(each.skipped for each in described if each.skipped)
        raise InvalidInputError(
            f"none of {what} can be described; the first: {first.reason}", culprit=first.key
        )
    return found


def merged(described: list[Described]) -> FeatureStatistics:
    """The moments of all files together."""
    parts = [each.statistics for each in described if each.statistics]
    total = parts[0]
    for part in parts[1:]:
        total = total.merged(part)
    return total
