"""Audio in and out through the gateway."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from services.cli.connection import Client
from services.cli.corpus import Recording, fingerprint, recordings, storable
from services.cli.progress import Progress
from services.errors import CorruptObjectError

if TYPE_CHECKING:
    from demiurge.audio.v1.audio_pb2 import ObjectRef
    from demiurge.gateway.v1.gateway_service_pb2 import UploadAudioRequest

CHUNK_BYTES = 64 * 1024


@dataclass(frozen=True)
class Database:
    """An audio database in the store, and its files in the order of their recordings."""

    name: str
    files: "list[ObjectRef]"


def upload(client: Client, folder: Path, progress: Progress) -> Database:
    """Stores a folder's recordings as a database that is named by folder and content.

    What is there already is found, since another content makes another name.
    """
    found = recordings(folder)
    name = f"{storable(folder.resolve().name)}-{fingerprint(found)[:8]}"
    files = []
    for recording in found:
        files.append(client.pipeline.UploadAudio(_messages(recording, name)).audio)
        progress.update(f"uploading {folder.name}", len(files), len(found))
    return Database(name, files)


def _messages(recording: Recording, database: str) -> "Iterator[UploadAudioRequest]":
    from demiurge.gateway.v1.gateway_service_pb2 import UploadAudioHeader, UploadAudioRequest

    header = UploadAudioHeader(
        database=database, file_name=recording.name, sha256=recording.sha256()
    )
    yield UploadAudioRequest(header=header)
    with recording.path.open("rb") as file:
        while data := file.read(CHUNK_BYTES):
            yield UploadAudioRequest(data=data)


def download(client: Client, key: str, target: Path) -> None:
    """Fetches an object into `target`, which appears whole or not at all.

    Raises CorruptObjectError, naming the key, if what arrived does not fit its hash.
    """
    from demiurge.gateway.v1.gateway_service_pb2 import DownloadAudioRequest

    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.part")
    total = hashlib.sha256()
    expected = ""
    try:
        with partial.open("wb") as file:
            for message in client.pipeline.DownloadAudio(DownloadAudioRequest(key=key)):
                expected = expected or message.object.sha256
                total.update(message.data)
                file.write(message.data)
        if total.hexdigest() != expected:
            raise CorruptObjectError(f"{key} arrived damaged: fetch it again", culprit=key)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
