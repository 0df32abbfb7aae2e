"""The object stores that the suites run against, and how a test gets behind their backs."""

import hashlib
import io
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from minio import Minio

from services.runtime.metrics import Metrics
from services.runtime.object_store.folder import FolderStore
from services.runtime.object_store.port import ObjectStore
from services.runtime.object_store.s3 import S3Store
from services.runtime.object_store.s3_upload import HASH_HEADER
from services.runtime.settings import S3Settings
from services.runtime.watched import WatchedStore
from tests.servers.seaweed import BUCKET, Seaweed

# The last is whatever server the environment names.
STORES = [
    "folder",
    "watched",
    "seaweed",
    *(["named"] if "DEMIURGE_TEST_S3_ENDPOINT" in os.environ else []),
]
WRITERS = 32
MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class Place:
    """Where a store is, and how its objects are got at without it."""

    reopen: Callable[[], ObjectStore]
    """Opens the same store anew, as another process would."""
    overwrite: Callable[[str, bytes], None]
    """Other bytes under a key, with all that was recorded of the former ones."""
    lay: Callable[[str, bytes], None]
    """An object that nothing is recorded of."""


def folder_place(folder: Path) -> Place:
    root = folder / "store"

    def lay(key: str, content: bytes) -> None:
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).unlink(missing_ok=True)
        (root / key).write_bytes(content)

    def overwrite(key: str, content: bytes) -> None:
        (root / key).write_bytes(content)

    return Place(lambda: FolderStore(root), overwrite, lay)


def watched_place(folder: Path) -> Place:
    """The folder, as services see it."""
    place = folder_place(folder)
    return replace(place, reopen=lambda: WatchedStore(place.reopen(), Metrics()))


def s3_place(location: str, settings: S3Settings, client: Minio) -> Place:
    bucket, _, prefix = location.removeprefix("s3://").partition("/")

    def lay(key: str, content: bytes) -> None:
        client.put_object(bucket, f"{prefix}/{key}", io.BytesIO(content), len(content))

    def overwrite(key: str, content: bytes) -> None:
        known = client.stat_object(bucket, f"{prefix}/{key}").metadata
        name = HASH_HEADER.removeprefix("x-amz-meta-")
        recorded = {name: known[HASH_HEADER]}
        client.put_object(
            bucket, f"{prefix}/{key}", io.BytesIO(content), len(content), metadata=recorded
        )

    return Place(lambda: S3Store(bucket, prefix, settings), overwrite, lay)


def named_client(settings: S3Settings) -> Minio:
    scheme, _, host = settings.endpoint.partition("://")
    return Minio(
        host,
        access_key=settings.access_key_file.read_text().strip(),
        secret_key=settings.secret_key_file.read_text().strip(),
        secure=scheme == "https",
        region=settings.region,
    )


@pytest.fixture(params=STORES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "folder":
        return folder_place(tmp_path)
    if request.param == "watched":
        return watched_place(tmp_path)
    server: Seaweed | None = None
    if request.param == "seaweed":
        server = request.getfixturevalue("seaweed")
        environment = server.environment
        location = server.location()
    else:
        environment = {
            name.replace("_TEST", ""): value
            for name, value in os.environ.items()
            if name.startswith("DEMIURGE_TEST_S3_")
        }
        location = f"s3://{BUCKET}/{os.urandom(8).hex()}"
    # Among 32 writers of one name, SeaweedFS lets the last wait for seconds.
    settings = S3Settings(
        timeout_seconds=60,
        **{name.removeprefix("DEMIURGE_S3_").lower(): value for name, value in environment.items()},
    )
    return s3_place(location, settings, named_client(settings))


@pytest.fixture
def reopen(place: Place) -> Callable[[], ObjectStore]:
    return place.reopen


@pytest.fixture
def store(place: Place) -> ObjectStore:
    return place.reopen()


def digest(content: bytes) -> str:
    """SHA-256, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()
