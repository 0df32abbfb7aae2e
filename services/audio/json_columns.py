"""JSON objects of columns, {"a": [1, 2, …], "b": 3}, written and read a piece at a time.

Whole, an hour's descriptors would become six million Python numbers.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import numpy as np
import orjson
from numpy.typing import NDArray

PIECE_BYTES = 1 << 18
MAX_VALUE_BYTES = 1 << 22

# No alternative can begin where another does, so a failure costs no more than the text is long.
# (Possessive quantifiers would say the same; Debian 12's Python 3.11.2 gets them wrong.)
_SPACE = re.compile(rb"[ \t\n\r]*")
_STRING = rb'"[^"\\]*(?:\\.[^"\\]*)*"'
_SCALAR = re.compile(_STRING + rb'|[^" \t\n\r,:\[\]{}]+', re.DOTALL)
# What may stand in a list without opening another: as far as it goes, and to its last comma.
_FLAT = re.compile(rb'[^"\[\]{}]*(?:' + _STRING + rb'[^"\[\]{}]*)*', re.DOTALL)
_FLAT_TO_COMMA = re.compile(rb'(?:[^",\[\]{}]*(?:' + _STRING + rb'[^",\[\]{}]*)*,)*', re.DOTALL)


class NotColumnsError(ValueError):
    """The content is no JSON object of columns; the message says why, after the file's name."""


def write_columns(file: BinaryIO, columns: Iterable[tuple[str, Any]]) -> None:
    """Writes what orjson would write of the whole object.

    A column is one value, or an iterator over its pieces: lists or 1-D arrays.
    """
    before = b"{"
    for name, column in columns:
        file.write(before + orjson.dumps(name) + b":")
        before = b","
        if isinstance(column, Iterator):
            file.write(b"[")
            between = b""
            for piece in column:
                if part := orjson.dumps(piece, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]:
                    file.write(between + part)
                    between = b","
            file.write(b"]")
        else:
            file.write(orjson.dumps(column))
    file.write(b"}")


def read_columns(file: BinaryIO) -> Iterator[tuple[str, Any]]:
    """The columns in the order of the file: a value, or an iterator over the pieces of a list.

    What is left of an iterator when the next column is asked for is passed over. Raises
    NotColumnsError as soon as the file turns out to be anything else.
    """
    text = _Text(file)
    if text.next_byte() != b"{":
        raise NotColumnsError("is not a JSON object of columns")
    text.skip()
    while text.next_byte() != b"}":
        name = text.scalar()
        if not isinstance(name, str):
            raise NotColumnsError("is not JSON: a name is not a string")
        text.expect(b":")
        if text.next_byte() == b"[":
            pieces = text.pieces(name)
            yield name, pieces
            for _ in pieces:
                pass
        elif text.next_byte() == b"{":
            raise NotColumnsError(f"{name} is not a list of plain values")
        else:
            yield name, text.scalar()
        if text.next_byte() == b",":
            text.skip()
            if text.next_byte() == b"}":
                raise NotColumnsError("is not JSON: a comma before the end")
        elif text.next_byte() != b"}":
            raise NotColumnsError("is not JSON: a comma is missing")
    text.skip()
    if text.next_byte():
        raise NotColumnsError("is not JSON: something follows its end")


def numbers(name: str, column: Any, dtype: type) -> Iterator[NDArray[Any]]:
    """A column of read_columns as 1-D arrays; NotColumnsError unless it is finite numbers."""
    if not isinstance(column, Iterator):
        raise NotColumnsError(f"{name} is not a list of numbers")
    for piece in column:
        if not set(map(type, piece)) <= {int, float}:
            raise NotColumnsError(f"{name} holds something other than numbers")
        with np.errstate(over="ignore"):
            array: NDArray[Any] = np.asarray(piece, np.float64).astype(dtype)
        if not np.isfinite(array).all():
            raise NotColumnsError(f"{name} holds values that are not finite")
        yield array


def strings(name: str, column: Any) -> Iterator[list[str]]:
    """A column of read_columns as lists; NotColumnsError unless it is strings."""
    if not isinstance(column, Iterator):
        raise NotColumnsError(f"{name} is not a list of names")
    for piece in column:
        if not set(map(type, piece)) <= {str}:
            raise NotColumnsError(f"{name} is not a list of names")
        yield piece


class _Text:
    """The file, of which only what is being looked at is in memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._buffer = b""
        self._at = 0

    def next_byte(self) -> bytes:
        """The next byte that is not white space, still to be read; nothing at the end."""
        while True:
            match = _SPACE.match(self._buffer, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._buffer) or not self._more():
                return self._buffer[self._at : self._at + 1]

    def skip(self) -> None:
        """Passes over the byte that next_byte showed."""
        self._at += 1

    def expect(self, byte: bytes) -> None:
        if self.next_byte() != byte:
            raise NotColumnsError(f"is not JSON: {byte.decode()} is missing")
        self.skip()

    def scalar(self) -> Any:
        """One value that is no list and no object."""
        self.next_byte()
        while True:
            match = _SCALAR.match(self._buffer, self._at)
            # A number may go on beyond the buffer, and a string that was begun must.
            ended = match.end() < len(self._buffer) if match else self.next_byte() != b'"'
            if ended or not self._more():
                break
        part = match[0] if match else self._buffer[self._at : self._at + 1]
        self._at += len(part)
        return _parsed(part)

    def pieces(self, name: str) -> Iterator[list[Any]]:
        """The list that begins here, in pieces."""
        self.expect(b"[")
        first = True
        while True:
            end = self._flat_end()
            after = self._buffer[end : end + 1]
            if after == b"]":
                break
            if after not in (b"", b'"'):
                raise NotColumnsError(f"{name} is not a list of plain values")
            if (comma := self._last_comma(end)) > self._at:
                yield self._piece(comma)
                self._at = comma + 1
                first = False
            if not self._more():
                raise NotColumnsError(f"is not JSON: {name} does not end")
        if not (first and not self._buffer[self._at : end].strip()):
            yield self._piece(end)
        self._at = end + 1

    def _piece(self, end: int) -> list[Any]:
        piece: list[Any] = _parsed(b"[%b]" % self._buffer[self._at : end])
        if not piece:
            raise NotColumnsError("is not JSON: a value is missing")
        return piece

    def _flat_end(self) -> int:
        """Where the list ends, or something begins that is neither a value nor whole."""
        end = self._buffer.find(b"]", self._at)
        end = len(self._buffer) if end < 0 else end
        # Numbers need no more, and are by far the most.
        if all(self._buffer.find(mark, self._at, end) < 0 for mark in (b'"', b"[", b"{", b"}")):
            return end
        match = _FLAT.match(self._buffer, self._at)
        return match.end() if match else self._at

    def _last_comma(self, end: int) -> int:
        if self._buffer.find(b'"', self._at, end) < 0:
            return self._buffer.rfind(b",", self._at, end)
        match = _FLAT_TO_COMMA.match(self._buffer, self._at, end)
        return match.end() - 1 if match else -1

    def _more(self) -> bool:
        if len(self._buffer) - self._at > MAX_VALUE_BYTES:
            raise NotColumnsError(f"holds a value of more than {MAX_VALUE_BYTES} bytes")
        piece = self._file.read(PIECE_BYTES)
        self._buffer = self._buffer[self._at :] + piece
        self._at = 0
        return bool(piece)


def _parsed(part: bytes) -> Any:
    try:
        return orjson.loads(part)
    except orjson.JSONDecodeError as error:
        raise NotColumnsError(f"is not JSON: {error}") from None
