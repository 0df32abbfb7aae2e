"""A port that is watched: how long its operations take, and which of them fail."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import wraps
from typing import Any, TypeVar, cast

from services.errors import (
    CorruptObjectError,
    DemiurgeError,
    StorageFullError,
    UnauthenticatedError,
    UnavailableError,
)

PortT = TypeVar("PortT")
Note = Callable[[str, float | None, str], None]
"""Told the operation, its seconds (None where they are its user's), and why it failed, or ""."""

# What is wrong with the store or index itself. The others are answers: no such key, a name taken.
FAULTS = (CorruptObjectError, StorageFullError, UnauthenticatedError, UnavailableError)


def watched(port: PortT, note: Note) -> PortT:
    """The same store or index, whose public operations are noted."""
    return cast("PortT", _Watched(port, note))


class _Watched:
    """Stands for the port, whichever it is: a method that is added to one is watched as well."""

    def __init__(self, port: object, note: Note) -> None:
        self._port = port
        self._note = note

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._port, name)
        if name.startswith("_") or not callable(method):
            return method

        @wraps(method)
        def operation(*arguments: Any, **keywords: Any) -> Any:
            begin = time.monotonic()
            try:
                result = method(*arguments, **keywords)
            except Exception as error:
                self._note(name, time.monotonic() - begin, _fault(error))
                raise
            if isinstance(result, AbstractContextManager):
                return self._held(name, result)
            if isinstance(result, Iterator):
                return self._each(name, result)
            self._note(name, time.monotonic() - begin, "")
            return result

        return operation

    @contextmanager
    def _held(self, name: str, manager: AbstractContextManager[Any]) -> Iterator[Any]:
        begin = time.monotonic()
        with ExitStack() as stack:
            try:
                value = stack.enter_context(manager)
            except Exception as error:
                self._note(name, time.monotonic() - begin, _fault(error))
                raise
            self._note(name, time.monotonic() - begin, "")
            try:
                yield value
            except FAULTS as error:
                # Of an object that is read bit by bit.
                self._note(name, None, error.reason)
                raise

    def _each(self, name: str, results: Iterator[Any]) -> Iterator[Any]:
        try:
            yield from results
        except Exception as error:
            self._note(name, None, _fault(error))
            raise


def _fault(error: Exception) -> str:
    """Why the port failed, as a word; "" if it did its part and the answer is no."""
    if isinstance(error, FAULTS):
        return error.reason
    return "" if isinstance(error, DemiurgeError) else DemiurgeError.reason
