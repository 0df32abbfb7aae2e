"""Which store a location names."""

from pathlib import Path

from services.errors import ConfigurationError
from services.runtime.object_store.folder import FolderStore
from services.runtime.object_store.port import ObjectStore
from services.runtime.settings import RuntimeSettings, S3Settings, load

S3 = "s3://"


def open_store(runtime: RuntimeSettings) -> ObjectStore:
    """The store at `runtime.store`: a folder, which is made if need be, or s3://bucket/prefix.

    How S3 is reached is read from the environment. Raises ConfigurationError, naming the variable,
    for what cannot work, UnauthenticatedError for keys that are refused, and UnavailableError if
    the store cannot be reached.
    """
    location = runtime.store
    if location.startswith(S3):
        # Starting takes a tenth of a second longer with it.
        from services.runtime.object_store.s3 import S3Store  # noqa: PLC0415

        bucket, _, prefix = location.removeprefix(S3).partition("/")
        return S3Store(bucket, prefix.rstrip("/"), load(S3Settings))
    if "://" in location:
        raise ConfigurationError(
            f"DEMIURGE_STORE: {location} is neither a folder nor s3://bucket/prefix",
            culprit="DEMIURGE_STORE",
        )
    return FolderStore(Path(location))
