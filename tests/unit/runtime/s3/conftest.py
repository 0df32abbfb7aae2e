"""A store of its own for every test, on a real server."""

import pytest

from services.runtime.object_store.s3 import S3Store
from services.runtime.settings import S3Settings
from tests.servers.seaweed import BUCKET, Seaweed


@pytest.fixture
def settings(seaweed: Seaweed) -> S3Settings:
    return S3Settings(
        endpoint=seaweed.endpoint,
        access_key_file=seaweed.access_key_file,
        secret_key_file=seaweed.secret_key_file,
    )


@pytest.fixture
def prefix(seaweed: Seaweed) -> str:
    return seaweed.location().rpartition("/")[2]


@pytest.fixture
def store(settings: S3Settings, prefix: str) -> S3Store:
    return S3Store(BUCKET, prefix, settings)
