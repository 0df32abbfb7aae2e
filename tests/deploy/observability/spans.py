"""Spans, as an OTLP receiver printed what it was sent."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

_SPAN = re.compile(r"^Span #\d+")
_FIELD = re.compile(r"^(Trace ID|Parent ID|ID|Name|Kind)\s*:\s*(.*)$")
_ATTRIBUTE = re.compile(r"^-> ([\w.]+): \w+\((.*)\)$")


@dataclass(frozen=True)
class Span:
    """`service` is who sent it; `parent` is "" where the trace begins."""

    service: str
    trace: str = ""
    id: str = ""
    parent: str = ""
    name: str = ""
    kind: str = ""
    attributes: dict[str, str] = field(default_factory=dict)


def spans(printed: str) -> list[Span]:
    """Every span, in the order of arrival."""
    found: list[Span] = []
    resource: dict[str, str] = {}
    place = resource
    values: dict[str, str] = {}

    def finish() -> None:
        if values.get("ID"):
            service = resource.get("service.name", "")
            ids = (values["Trace ID"], values["ID"], values["Parent ID"])
            found.append(Span(service, *ids, values["Name"], values["Kind"], dict(place)))
        values.clear()

    for line in map(str.strip, printed.splitlines()):
        if line.startswith("ResourceSpans #"):
            finish()
            place = resource = {}
        elif _SPAN.match(line):
            finish()
            place = {}
        elif match := _FIELD.match(line):
            values[match[1]] = match[2]
        elif match := _ATTRIBUTE.match(line):
            place[match[1]] = match[2]
    finish()
    return found


def ancestors(span: Span, among: Iterable[Span]) -> list[Span]:
    """Its parent, whose parent, and so on to where the trace begins."""
    by_id = {(other.trace, other.id): other for other in among}
    line: list[Span] = []
    while span.parent and (parent := by_id.get((span.trace, span.parent))):
        line.append(parent)
        span = parent
    return line
