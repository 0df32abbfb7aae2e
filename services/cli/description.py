"""A folder of sounds, stored and described: what `extract` and `index` have in common."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from services.cli.connection import Client
from services.cli.progress import Progress
from services.cli.transfer import upload
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
    client: Client, folder: Path, settings: "ExtractionSettings", progress: Progress
) -> Iterator[Described]:
    """Each sound of the folder; one that cannot be read is named and left out.

    Raises InvalidInputError if none can.
    """
    from demiurge.descriptor.v1.descriptor_service_pb2 import ExtractDescriptorsRequest

    from services.runtime.status import remote_errors

    files = upload(client, folder, progress).files
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
    if not usable:
        raise InvalidInputError(f"no sound in {folder} can be described: see the lines above")
