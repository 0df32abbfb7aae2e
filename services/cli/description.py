"""Sounds of the store, described: what `extract` and `index` have in common."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.cli.connection import Client
from services.cli.progress import Progress
from services.errors import InvalidInputError

if TYPE_CHECKING:
    from demiurge.audio.v1.audio_pb2 import ObjectRef
    from demiurge.descriptor.v1.descriptor_service_pb2 import (
        ExtractDescriptorsResponse,
        ExtractionSettings,
    )


@dataclass(frozen=True)
class Described:
    """One stored sound with the service's answer."""

    audio: "ObjectRef"
    answer: "ExtractDescriptorsResponse"

    @property
    def name(self) -> str:
        """File name of the sound."""
        return self.audio.key.rpartition("/")[2]


def describe(
    client: Client,
    files: "Sequence[ObjectRef]",
    settings: "ExtractionSettings",
    progress: Progress,
    *,
    place: str = "",
) -> Iterator[Described]:
    """Each of the files; one that cannot be read is named and left out.

    Raises InvalidInputError if none can, where they are all of `place`.
    """
    from demiurge.descriptor.v1.descriptor_service_pb2 import ExtractDescriptorsRequest

    from services.runtime.status import remote_errors

    usable = 0
    for count, audio in enumerate(files, start=1):
        request = ExtractDescriptorsRequest(audio=audio, settings=settings)
        try:
            with remote_errors():
                answer = client.descriptor.ExtractDescriptors(request)
        except InvalidInputError as error:
            progress.say(f"left out: {error.message}")
        else:
            usable += 1
            yield Described(audio, answer)
        progress.update("extracting", count, len(files))
    if place and not usable:
        raise InvalidInputError(f"no sound in {place} can be described: see the lines above")
