"""A relay before a real HTTP server, which answers by itself what a test wants otherwise."""

import http.client
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BLOCK_BYTES = 1 << 16


@dataclass(frozen=True)
class Request:
    """What a client asked."""

    method: str
    path: str
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Answer:
    """What it is told; `break_off_after` bytes the connection ends, if that is not negative."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    break_off_after: int = -1

    @classmethod
    def failure(cls, status: int, code: str) -> "Answer":
        """As S3 tells of a failure."""
        body = f"<Error><Code>{code}</Code><Message>as the test wants</Message></Error>"
        return cls(status, body.encode(), {"Content-Type": "application/xml"})


@contextmanager
def relay(
    endpoint: str,
    answer: Callable[[Request], Answer | None],
    change: Callable[[Request, Answer], Answer] = lambda _, answer: answer,
    *,
    seconds_a_block: float = 0,
) -> Iterator[str]:
    """The endpoint of the relay: `answer`, or else what `change` makes of the server's own answer.

    It takes blocks of 64 KiB, pausing after each. Signatures stay right, since the host that
    the client names is passed on.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            request = Request(self.command, self.path, dict(self.headers))
            body = self.body()
            told = answer(request) or change(request, self.passed_on(body))
            self.send_response_only(told.status)
            for name, value in told.headers.items():
                if name.lower() not in {"content-length", "connection", "transfer-encoding"}:
                    self.send_header(name, value)
            length = told.headers.get("Content-Length") if self.command == "HEAD" else None
            self.send_header("Content-Length", length or str(len(told.body)))
            self.end_headers()
            self.wfile.write(
                told.body[: told.break_off_after if told.break_off_after >= 0 else None]
            )
            self.close_connection = told.break_off_after >= 0

        def body(self) -> bytes:
            left = int(self.headers.get("Content-Length") or 0)
            blocks = []
            while left:
                blocks.append(self.rfile.read(min(left, BLOCK_BYTES)))
                left -= len(blocks[-1])
                time.sleep(seconds_a_block)
            return b"".join(blocks)

        def passed_on(self, body: bytes) -> Answer:
            onward = http.client.HTTPConnection(endpoint.partition("://")[2], timeout=60)
            try:
                onward.request(self.command, self.path, body, dict(self.headers))
                told = onward.getresponse()
                return Answer(told.status, told.read(), dict(told.getheaders()))
            finally:
                onward.close()

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any  # noqa: N815 - http.server's

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            serving.join()
