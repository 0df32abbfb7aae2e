"""The real Envoy with the committed configuration; only ports and folders are the test's own."""

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from tests.e2e.processes import free_port

CONFIGURATION = Path(__file__).parents[3] / "deploy" / "envoy"
START_SECONDS = 30.0


def binary() -> Path:
    """The program itself: the command of that name is a script, which would outlive a test."""
    return Path(str(files("envoy"))) / "_bin" / "envoy"


@dataclass(frozen=True)
class Proxy:
    """A running Envoy."""

    port: int
    metrics_port: int
    log: Path
    process: "subprocess.Popen[bytes]"

    @property
    def address(self) -> str:
        """The one address."""
        return f"127.0.0.1:{self.port}"

    def calls(self) -> list[dict[str, Any]]:
        """The lines of the access log."""
        lines = self.log.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def metrics(self) -> str:
        """What Prometheus is answered."""
        return self.got("/metrics").decode()

    def got(self, path: str) -> bytes:
        """What is answered at the port for Prometheus."""
        return _got(self.metrics_port, path)


def placed(
    folder: Path,
    *,
    admin_port: int = 9901,
    variant: str = "",
    changes: Mapping[str, str] | None = None,
) -> Path:
    """A copy of the configuration in `folder`, on free ports; `variant` is laid over it."""
    place = folder / "envoy"
    shutil.copytree(CONFIGURATION, place)
    if variant:
        for path in (place / variant).glob("*.yaml"):
            if (place / path.name).exists():
                shutil.copy(path, place / path.name)
    for path in place.rglob("*.yaml"):
        text = path.read_text().replace("/etc/envoy/", f"{place}/")
        text = text.replace("port_value: 9464", "port_value: 0")
        text = text.replace("port_value: 9901", f"port_value: {admin_port}")
        if path.name == "listeners.yaml":
            text = text.replace(
                "address: 0.0.0.0, port_value: 50051", "address: 127.0.0.1, port_value: 0"
            )
        for old, new in (changes or {}).items():
            text = text.replace(old, new)
        path.write_text(text)
    return place


@contextmanager
def running(
    folder: Path,
    names_port: int,
    *,
    variant: str = "",
    fragments: Sequence[str] = (),
    changes: Mapping[str, str] | None = None,
) -> Iterator[Proxy]:
    """Envoy, ready, asking the name server at `names_port`; `fragments` are files merged in."""
    admin_port = free_port()
    place = placed(folder, admin_port=admin_port, variant=variant, changes=changes)
    merged: dict[str, Any] = {
        "typed_dns_resolver_config": {
            "name": "envoy.network.dns_resolver.cares",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3"
                ".CaresDnsResolverConfig",
                "resolvers": [
                    {"socket_address": {"address": "127.0.0.1", "port_value": names_port}}
                ],
            },
        }
    }
    for fragment in fragments:
        merged |= yaml.safe_load((place / fragment).read_text())
    log = folder / "envoy.log"
    command = [binary(), "-c", place / "envoy.yaml", "--config-yaml", json.dumps(merged)]
    options = ["--use-dynamic-base-id", "--concurrency", "2", "--log-level", "warn"]
    options += ["--file-flush-interval-msec", "20"]
    with log.open("wb") as output:
        process = subprocess.Popen([*command, *options], stdout=output, stderr=output)
    try:
        yield _ready(process, admin_port, log)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


def _ready(process: "subprocess.Popen[bytes]", admin_port: int, log: Path) -> Proxy:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            listeners = json.loads(_got(admin_port, "/listeners?format=json"))
        except (OSError, HTTPException):
            listeners = {}
        ports = {
            listener["name"]: listener["local_address"]["socket_address"]["port_value"]
            for listener in listeners.get("listener_statuses", [])
        }
        if ports.keys() >= {"front", "metrics"}:
            return Proxy(ports["front"], ports["metrics"], log, process)
        time.sleep(0.05)
    raise AssertionError(log.read_text()[-4000:])


def _got(port: int, path: str) -> bytes:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    finally:
        connection.close()
