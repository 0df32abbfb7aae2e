"""Temporary space: a disk without room for what is on its way says so."""

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from services.errors import StorageFullError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def temporary_room(name: str) -> Iterator[None]:
    """Raises StorageFullError, naming what was to be written, where the system says "full"."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise StorageFullError(
            f"{name}: no room for it in {tempfile.gettempdir()}, where it waits to be stored: "
            "make some, or set TMPDIR to a folder that has",
            culprit=name,
        ) from error
