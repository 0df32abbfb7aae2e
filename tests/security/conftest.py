"""Servers to attack: those of the runtime alone, with real sockets and real handshakes."""

from tests.contract.runtime.conftest import log, start

__all__ = ["log", "start"]
