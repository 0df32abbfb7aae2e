"""Which store a location names."""

from pathlib import Path

from services.errors import ConfigurationError
from services.runtime.object_store.folder import FolderStore
from services.runtime.object_store.port import ObjectStore


def open_store(location: str) -> ObjectStore:
    """The store at `location`, a folder.

    Raises ConfigurationError, naming DEMIURGE_STORE, for locations of another kind, and
    UnavailableError if the folder cannot be made.
    """
    if "://" in location:
        raise ConfigurationError(
            f"DEMIURGE_STORE: {location} is not a folder", culprit="DEMIURGE_STORE"
        )
    return FolderStore(Path(location))
