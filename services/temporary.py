"""Temporary files: where their disk has no room, that is said, and where to make some.

They have no names, so that not even a process that is killed leaves any.
"""

import errno
import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from services.errors import StorageFullError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def temporary_room(name: str = "") -> Iterator[None]:
    """Raises StorageFullError, naming what was to be written, where the system says "full"."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        folder = tempfile.gettempdir()
        raise StorageFullError(
            f"{name or 'temporary files'}: no room in {folder}, where what is at work waits: make "
            "some, or set TMPDIR to a folder on a larger disk",
            culprit=name or folder,
        ) from error


@contextmanager
def temporary_file(name: str = "") -> Iterator[io.BufferedRandom]:
    """An open file without a name, to write to and read from; gone with the process at the latest.

    Raises StorageFullError if there is no room for even that.
    """
    with temporary_room(name):
        file = tempfile.TemporaryFile()  # noqa: SIM115 - see below
    try:
        yield file
    finally:
        # Closing writes what is still buffered, for which there may be no room: nobody misses it.
        with suppress(OSError):
            file.close()
