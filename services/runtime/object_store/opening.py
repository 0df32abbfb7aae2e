"""Which store a location names."""

import re
from pathlib import Path

from services.errors import ConfigurationError, NotFoundError
from services.runtime.object_store.folder import INCOMING, FolderStore
from services.runtime.object_store.port import ObjectStore
from services.runtime.settings import RuntimeSettings, S3Settings, load

S3 = "s3://"
# "s3:/bucket" as well: a folder of such a name would be found far too late.
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
# What S3 allows; some servers allow more, and others would refuse it.
_BUCKET = re.compile(r"(?!.*\.\.)(?!\d+\.\d+\.\d+\.\d+$)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


def folder_of(runtime: RuntimeSettings) -> Path | None:
    """The folder that `runtime.store` names; None for s3://…

    Raises ConfigurationError, naming DEMIURGE_STORE, for what is neither.
    """
    location = runtime.store
    if location.startswith(S3):
        return None
    if _SCHEME.match(location):
        raise _wrong(
            f"{location} is neither a folder nor s3://bucket or s3://bucket/prefix, as in "
            "s3://our-lab"
        )
    return Path(location).expanduser()


def open_store(runtime: RuntimeSettings) -> ObjectStore:
    """The store at `runtime.store`: a folder, which is made if need be, or s3://bucket/prefix.

    How S3 is reached is read from the environment. Raises ConfigurationError, naming the variable,
    for what cannot work, UnauthenticatedError for keys that are refused, and UnavailableError if
    the store cannot be reached.
    """
    folder = folder_of(runtime)
    if folder:
        return FolderStore(folder)
    # Starting takes a tenth of a second longer with it.
    from services.runtime.object_store.s3 import S3Store  # noqa: PLC0415

    bucket, prefix = _bucket_of(runtime)
    return S3Store(bucket, prefix, load(S3Settings))


def store_is_there(runtime: RuntimeSettings) -> bool:
    """Whether opening the store would find it, and not make it; raises as open_store does."""
    folder = folder_of(runtime)
    if folder:
        return (folder / INCOMING).is_dir()
    from services.runtime.object_store.bucket import Bucket  # noqa: PLC0415

    bucket, prefix = _bucket_of(runtime)
    try:
        Bucket(bucket, f"{prefix}/" if prefix else "", load(S3Settings), make=False)
    except NotFoundError:
        return False
    return True


def _bucket_of(runtime: RuntimeSettings) -> tuple[str, str]:
    """The bucket and the prefix, "" for none, that s3://… names."""
    bucket, _, prefix = runtime.store.removeprefix(S3).partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise _wrong(
            f"{runtime.store}: a bucket's name is 3 to 63 lower-case letters, digits, dots and "
            "hyphens, with a letter or digit at both ends, as in s3://our-lab"
        )
    return bucket, prefix.rstrip("/")


def _wrong(what: str) -> ConfigurationError:
    return ConfigurationError(f"DEMIURGE_STORE: {what}", culprit="DEMIURGE_STORE")
