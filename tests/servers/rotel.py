"""A real OpenTelemetry collector, rotel, that tells what spans reach it."""

import re
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import rotel

from tests.e2e.processes import free_port

AGENT = Path(rotel.__file__).with_name("rotel-agent")
_ATTRIBUTE = re.compile(r"-> ([\w.]+): \w+\((.*)\)")


@dataclass
class Span:
    """A span as the collector received it."""

    service: str
    name: str = ""
    trace_id: str = ""
    parent_id: str = ""
    id: str = ""
    kind: str = ""
    failed: bool = False
    reason: str = ""
    attributes: dict[str, str] = field(default_factory=dict)
    links: list[str] = field(default_factory=list)
    """Ids of spans elsewhere."""


class Rotel:
    """`with Rotel(folder) as collector`: takes OTLP over HTTP at `endpoint`."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._log = folder / "rotel.log"

    def __enter__(self) -> Self:
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [
                    *(str(AGENT), "start", "--exporter", "blackhole"),
                    *("--otlp-http-endpoint", f"127.0.0.1:{self.port}"),
                    *("--otlp-grpc-endpoint", f"127.0.0.1:{free_port()}"),
                    *("--debug-log", "traces", "--debug-log-verbosity", "detailed"),
                    *("--disable-batching",),
                ],
                stdout=log,
                stderr=log,
            )
        self._until("Starting Rotel")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def spans(self, *names: str) -> list[Span]:
        """All that came, once there are such of these names."""
        for name in names:
            self._until(f": {name}\n")
        return _parsed(self._log.read_text())

    def _until(self, text: str) -> None:
        deadline = time.monotonic() + 60
        while text not in self._log.read_text():
            assert time.monotonic() < deadline, self._log.read_text()
            assert self._process.poll() is None, self._log.read_text()
            time.sleep(0.05)


def _parsed(log: str) -> list[Span]:
    spans: list[Span] = []
    service, linked = "", False
    for line in map(str.strip, log.splitlines()):
        name, _, value = (part.strip() for part in line.partition(":"))
        attribute = _ATTRIBUTE.match(line)
        if attribute and attribute[1] == "service.name":
            service = attribute[2]
        elif re.fullmatch(r"Span #\d+", line):
            spans.append(Span(service))
            linked = False
        elif not spans:
            continue
        elif line.startswith(("SpanLink", "Links")):
            linked = True
        elif attribute and not linked:
            spans[-1].attributes[attribute[1]] = attribute[2]
        elif linked and "ID" in name and "race" not in name:
            spans[-1].links.append(value)
        elif name in {"Trace ID", "Parent ID", "ID", "Name", "Kind"} and not linked:
            field_name = name.lower().replace(" ", "_")
            setattr(spans[-1], field_name, value)
        elif name == "Status code":
            spans[-1].failed = value == "STATUS_CODE_ERROR"
        elif name == "Status message":
            spans[-1].reason = value
    return spans
