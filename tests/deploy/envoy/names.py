"""A name server of the test's own: who a service's replicas are changes as the test wants."""

import socketserver
import struct
import threading
from types import TracebackType
from typing import Self

_HEADER = struct.Struct("!6H")
_A = 1
_NAME_ERROR = 3


class Names:
    """Answers A queries by the first label of the name; whoever has no address does not exist."""

    def __init__(self) -> None:
        self.addresses: dict[str, list[str]] = {}
        names = self

        class Answer(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                query, socket = self.request
                socket.sendto(names.answer(query), self.client_address)

        self._server = socketserver.ThreadingUDPServer(("127.0.0.1", 0), Answer)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def port(self) -> int:
        """Where it is asked, by UDP."""
        return int(self._server.server_address[1])

    def answer(self, query: bytes) -> bytes:
        """The answer to one query."""
        number, _, *_ = _HEADER.unpack_from(query)
        label = query[_HEADER.size + 1 :][: query[_HEADER.size]].decode()
        end = query.index(0, _HEADER.size) + 5
        (kind,) = struct.unpack_from("!H", query, end - 4)
        addresses = self.addresses.get(label, [])
        found = addresses if kind == _A else []
        code = 0x8180 | (0 if addresses else _NAME_ERROR)
        parts = [_HEADER.pack(number, code, 1, len(found), 0, 0), query[_HEADER.size : end]]
        for address in found:
            octets = bytes(map(int, address.split(".")))
            # The name is that of the question, and nobody is to keep the answer.
            parts.append(struct.pack("!HHHIH", 0xC00C, _A, 1, 0, len(octets)) + octets)
        return b"".join(parts)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
