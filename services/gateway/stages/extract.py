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
    """One answer: a description, or why there is none."""

    description: Description
    skipped: SkippedItem | None = None


class Moments:
    """The moments of all files together, merged in the files' order so that no bit depends on luck.

    Those of thousands of files do not wait for the last: only what came too early is held.
    """

    def __init__(self) -> None:
        self.total: FeatureStatistics | None = None
        self._early: dict[int, FeatureStatistics | None] = {}
        self._next = 0

    def add(self, number: int, statistics: FeatureStatistics | None) -> None:
        """Takes the moments of file `number`, None if it has none; each number once."""
        self._early[number] = statistics
        while self._next in self._early:
            part = self._early.pop(self._next)
            self._next += 1
            if part is not None:
                self.total = part if self.total is None else self.total.merged(part)


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

    # A sound may be material and be continued too.
    audio = {each.key: each for each in (*material, *prediction)}
    moments = Moments()

    async def describe(numbered: tuple[int, ObjectRef]) -> Described:
        number, sound = numbered
        request = ExtractDescriptorsRequest(audio=sound, settings=context.spec.extraction)
        description = Description(audio=sound)
        try:
            response = await peers.call(peers.descriptor.ExtractDescriptors, request)
        except InvalidInputError as error:
            moments.add(number, None)
            return Described(description, SkippedItem(key=sound.key, reason=error.message))
        # By reference: a database's descriptors together may not fit into memory or a message.
        # Cleared before it is copied, for a message keeps the memory of what it once held.
        response.track.ClearField("values")
        description.track.CopyFrom(response.track)
        description.track.object.CopyFrom(response.object)
        if number < len(material):
            moments.add(number, statistics_from_message(response.statistics))
        return Described(description)

    described = await fan_out(
        list(enumerate(audio.values())), describe, concurrency=context.concurrency, advance=advance
    )
    by_key = dict(zip(audio, described, strict=True))
    of_material = [by_key[each.key] for each in material]
    of_prediction = [by_key[each.key] for each in prediction]
    descriptions = Descriptions(
        material=usable(of_material, "the material"),
        prediction=usable(of_prediction, "the sounds to continue"),
        skipped=[each.skipped for each in described if each.skipped],
    )
    if moments.total is not None:
        descriptions.statistics.CopyFrom(statistics_to_message(moments.total))
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
