"""Arrays that are made once and kept in files, found again by what they were made from.

An entry is one file: an array as NumPy writes it (NEP 1), facts about it as JSON, the length of
that, and the SHA-256 of all before. NumPy ignores what follows an array, so `numpy.load` reads an
entry too.

An entry appears whole or not at all, and a key always makes the same bytes, so processes that make
one at the same time disturb nobody. Whoever wants room may delete any or all of the files, whenever
they like: what is in use stays until it is let go, and what is wanted again is made again.
"""

import errno
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson
from numpy.lib import format as npy
from numpy.typing import NDArray

from services.errors import StorageFullError, UnavailableError

# Raised when entries are laid out in another way.
LAYOUT = 1
DIGEST_BYTES = hashlib.sha256().digest_size
LENGTH_BYTES = 8
BLOCK_BYTES = 1 << 20
PARTIAL = ".part"
# Then a partial file is one of a process that was killed.
SECONDS_UNTIL_ABANDONED = 24 * 3600
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

Facts = Mapping[str, Any]
Append = Callable[[NDArray[Any]], None]


@dataclass(frozen=True, eq=False)
class Entry:
    """A kept array, read-only, and what was found out while it was made.

    The array lies in its file: what is looked at comes into memory, and may leave it again.
    """

    array: NDArray[Any]
    facts: Facts


class ArrayCache:
    """Arrays below `folder`. Without one nothing is kept, and arrays lie in memory.

    Safe to use from many threads and processes.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        if folder is not None:
            _delete_abandoned(folder)

    def get(self, kind: str, key: Facts, make: Callable[[Append], Facts]) -> Entry:
        """The entry that `key` (JSON values) names; made where there is none, or a damaged one.

        `make` is given a function that appends an array to those before along the first axis, calls
        it until there is at least one row, and returns the facts (JSON values). What it raises
        comes out, and nothing is kept then. `kind` is the folder that the entry lies in.

        Raises StorageFullError if there is no room, UnavailableError if nothing can be written.
        """
        if self._folder is None:
            parts: list[NDArray[Any]] = []
            facts = make(parts.append)
            whole = parts[0].view() if len(parts) == 1 else np.concatenate(parts)
            whole.flags.writeable = False
            return Entry(whole, facts)
        written = orjson.dumps([LAYOUT, dict(key)], option=orjson.OPT_SORT_KEYS)
        path = self._folder / kind / f"{hashlib.sha256(written).hexdigest()}.npy"
        found = _load(path)
        if found is None:
            _write(path, make)
            found = _load(path)
        if found is None:
            raise UnavailableError(
                f"{path} is not what was just written: its disk may be failing", culprit=str(path)
            )
        return found


def _load(path: Path) -> Entry | None:
    """The entry, checked to its last bit; None if there is none or it is damaged."""
    try:
        with path.open("rb") as file:
            facts = _checked_facts(file)
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        return None
    return Entry(np.asarray(array), facts)


def _checked_facts(file: BinaryIO) -> Facts:
    """The facts of an entry; ValueError where its digest does not fit."""
    end = file.seek(0, os.SEEK_END) - DIGEST_BYTES
    if end < LENGTH_BYTES or _digest(file, end) != file.read():
        raise ValueError("damaged")
    file.seek(end - LENGTH_BYTES)
    length = int.from_bytes(file.read(LENGTH_BYTES), "little")
    file.seek(end - LENGTH_BYTES - length)
    facts: Facts = orjson.loads(file.read(length))
    return facts


def _digest(file: BinaryIO, end: int) -> bytes:
    """SHA-256 of the file up to `end`, where it then stands."""
    file.seek(0)
    digest = hashlib.sha256()
    while block := file.read(min(end - file.tell(), BLOCK_BYTES)):
        digest.update(block)
    return digest.digest()


def _write(path: Path, make: Callable[[Append], Facts]) -> None:
    with _writable(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(PARTIAL, prefix="", dir=path.parent)
    partial = Path(name)
    file = os.fdopen(handle, "w+b")
    try:
        rows = _Rows(file, path.parent)
        rows.end(make(rows.append))
        with _writable(path.parent):
            partial.replace(path)
    finally:
        # Closing writes what is still buffered, for which there may be no room.
        with suppress(OSError):
            file.close()
        partial.unlink(missing_ok=True)


class _Rows:
    """An array on its way into a file of `folder`; only its end is in memory."""

    def __init__(self, file: BinaryIO, folder: Path) -> None:
        self._file = file
        self._folder = folder
        self._count = 0
        self._layout: tuple[np.dtype[Any], tuple[int, ...]] | None = None

    def append(self, array: NDArray[Any]) -> None:
        layout = (array.dtype, array.shape[1:])
        if self._layout is None:
            self._write_header(*layout)
            self._layout = layout
        if layout != self._layout:
            raise ValueError(f"rows of {layout} cannot follow rows of {self._layout}")
        with _writable(self._folder):
            self._file.write(np.ascontiguousarray(array).data)
        self._count += len(array)

    def end(self, facts: Facts) -> None:
        if self._layout is None or not self._count:
            raise ValueError("an array without rows cannot be kept")
        written = orjson.dumps(dict(facts))
        # Only now is the length known. NumPy leaves room for it, so the header does not grow.
        self._write_header(*self._layout)
        with _writable(self._folder):
            end = self._file.seek(0, os.SEEK_END) + len(written) + LENGTH_BYTES
            self._file.write(written + len(written).to_bytes(LENGTH_BYTES, "little"))
            self._file.write(_digest(self._file, end))
            self._file.flush()

    def _write_header(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        descr = npy.dtype_to_descr(dtype)
        header = {"descr": descr, "fortran_order": False, "shape": (self._count, *shape)}
        with _writable(self._folder):
            self._file.seek(0)
            npy.write_array_header_1_0(self._file, header)


@contextmanager
def _writable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise StorageFullError(
                f"{folder}: no room for prepared recordings: make some; all that is in this "
                "folder may be deleted",
                culprit=str(folder),
            ) from error
        raise UnavailableError(
            f"{folder}: prepared recordings cannot be kept there ({error.strerror}): make it a "
            "folder that can be written to",
            culprit=str(folder),
        ) from error


def _delete_abandoned(folder: Path) -> None:
    newest = time.time() - SECONDS_UNTIL_ABANDONED
    for partial in folder.glob(f"*/*{PARTIAL}"):
        # Another process may clear up too.
        with suppress(OSError):
            if partial.stat().st_mtime < newest:
                partial.unlink()
