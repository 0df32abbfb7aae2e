"""Audio in and out through the gateway; what broke off goes on from where it was."""

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from services.cli.connection import Client
from services.cli.corpus import Recording, fingerprint, recordings, storable
from services.cli.progress import Progress
from services.cli.shard import WHOLE, Shard
from services.errors import BusyError, CorruptObjectError, NotFoundError, UnavailableError

if TYPE_CHECKING:
    from demiurge.audio.v1.audio_pb2 import ObjectRef
    from demiurge.gateway.v1.gateway_service_pb2 import UploadAudioRequest

CHUNK_BYTES = 64 * 1024
LARGEST_PAGE = 1000
# Between tries; each try is itself tried again by the channel for a second or two.
PAUSES_SECONDS = (0.5, 1.0, 2.0, 4.0)

T = TypeVar("T")


@dataclass(frozen=True)
class Database:
    """An audio database in the store, and its files in the order of their recordings."""

    name: str
    files: "list[ObjectRef]"


def upload(client: Client, folder: Path, progress: Progress, shard: Shard = WHOLE) -> Database:
    """Stores the shard's recordings of a folder in a database named by folder and content.

    What is there already is found, since another content makes another name, and is not sent again.
    All shards' are in one database.
    """
    found = recordings(folder)
    name = f"{storable(folder.resolve().name)}-{fingerprint(found)[:8]}"
    there = _ridden_out(partial(_stored, client, name))
    found = [recording for recording in found if shard.holds(recording.name)]
    files = []
    for recording in found:
        file = there.get(f"audio/{name}/{recording.name}")
        if file is None or file.sha256 != recording.sha256:
            file = _ridden_out(partial(_sent, client, recording, name))
        files.append(file)
        progress.update(f"uploading {folder.name}", len(files), len(found))
    return Database(name, files)


def stored(client: Client, name: str, shard: Shard = WHOLE) -> Database:
    """The shard's files of an audio database, by name.

    Raises NotFoundError, naming it, if nothing is in it.
    """
    there = _ridden_out(partial(_stored, client, name))
    if not there:
        raise NotFoundError(f"the store has no audio database {name!r}", culprit=name)
    return Database(
        name, [there[key] for key in sorted(there) if shard.holds(key.rpartition("/")[2])]
    )


def _stored(client: Client, database: str) -> "dict[str, ObjectRef]":
    """What is in the database, by key."""
    from demiurge.gateway.v1.gateway_service_pb2 import ListAudioRequest

    there = {}
    request = ListAudioRequest(database=database, page_size=LARGEST_PAGE)
    while True:
        page = client.pipeline.ListAudio(request)
        there.update({file.key: file for file in page.audio})
        if not page.next_page_token:
            return there
        request.page_token = page.next_page_token


def _sent(client: Client, recording: Recording, database: str) -> "ObjectRef":
    return client.pipeline.UploadAudio(_messages(recording, database)).audio


def _messages(recording: Recording, database: str) -> "Iterator[UploadAudioRequest]":
    from demiurge.gateway.v1.gateway_service_pb2 import UploadAudioHeader, UploadAudioRequest

    header = UploadAudioHeader(database=database, file_name=recording.name, sha256=recording.sha256)
    yield UploadAudioRequest(header=header)
    with recording.path.open("rb") as file:
        while data := file.read(CHUNK_BYTES):
            yield UploadAudioRequest(data=data)


def download(client: Client, reference: "ObjectRef", target: Path) -> None:
    """Fetches an object into `target`, which appears whole or not at all.

    What has arrived stays beside it in a hidden .part file until the whole is there, so that a
    download that broke off goes on: a few times by itself, then by the same command. Raises
    UnavailableError if it stays broken, and CorruptObjectError, naming the key, if what arrived
    does not fit its hash.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    # Of this content alone: another one under the same name begins anew.
    part = target.with_name(f".{target.name}.{reference.sha256[:8]}.part")
    try:
        _ridden_out(partial(_fetch_rest, client, reference, part))
    except UnavailableError as error:
        raise UnavailableError(
            f"{reference.key}: {error.message} (the same command goes on after "
            f"{part.stat().st_size} of {reference.size_bytes} bytes)",
            culprit=reference.key,
        ) from error
    with part.open("rb") as file:
        arrived = hashlib.file_digest(file, "sha256").hexdigest()
    if arrived != reference.sha256:
        part.unlink()
        raise CorruptObjectError(
            f"{reference.key} arrived damaged: fetch it again", culprit=reference.key
        )
    part.replace(target)


def _fetch_rest(client: Client, reference: "ObjectRef", part: Path) -> None:
    """Appends what `part` lacks."""
    from demiurge.gateway.v1.gateway_service_pb2 import DownloadAudioRequest

    with part.open("ab") as file:
        if file.tell() > reference.size_bytes:
            file.seek(file.truncate(0))
        request = DownloadAudioRequest(
            key=reference.key, sha256=reference.sha256, offset_bytes=file.tell()
        )
        for message in client.pipeline.DownloadAudio(request):
            file.write(message.data)
            file.flush()


def _ridden_out(work: Callable[[], T]) -> T:
    """What `work` answers; while the services are away or busy it is begun again, a few times."""
    from services.runtime.status import remote_errors

    for pause in PAUSES_SECONDS:
        try:
            with remote_errors():
                return work()
        except (UnavailableError, BusyError):
            time.sleep(pause)
    with remote_errors():
        return work()
