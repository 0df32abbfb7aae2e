"""A trace begins at Envoy, or goes on through it, where a collector is set."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.deploy.envoy.conftest import http
from tests.deploy.envoy.names import Names
from tests.deploy.envoy.proxy import running
from tests.deploy.envoy.replicas import host
from tests.e2e.workspace import wait_until

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


class Collector(ThreadingHTTPServer):
    """Keeps what is sent to it by OTLP over HTTP."""

    def __init__(self, place: str) -> None:
        self.received: list[tuple[str, bytes]] = []
        received = self.received

        class Receive(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                received.append((self.path, b"".join(self._chunks())))
                self.send_response(200)
                self.end_headers()

            def _chunks(self) -> Iterator[bytes]:
                # Envoy sends no length.
                while size := int(self.rfile.readline(), 16):
                    yield self.rfile.read(size)
                    self.rfile.readline()

            def log_message(self, *_: object) -> None:
                pass

        super().__init__((place, 4318), Receive)


@pytest.fixture
def collector() -> Iterator[Collector]:
    server = Collector(host(50))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_calls_are_traced_and_join_their_callers_trace(
    names: Names, collector: Collector, tmp_path: Path
) -> None:
    names.addresses["traces"] = [host(50)]
    with running(tmp_path, names.port, fragments=["tracing.yaml"]) as proxy:
        http(proxy, "GET", "/v1/nothing", None, {"traceparent": PARENT})
        http(proxy, "GET", "/v1/nothing", None, {})
        wait_until(lambda: len(proxy.calls()) == 2)
        first, second = (call["trace_id"] for call in proxy.calls())
        wait_until(
            lambda: bytes.fromhex(second) in b"".join(body for _, body in collector.received)
        )
    assert first == TRACE
    assert {path for path, _ in collector.received} == {"/v1/traces"}
    sent = b"".join(body for _, body in collector.received)
    assert bytes.fromhex(TRACE) in sent
    assert b"envoy" in sent
