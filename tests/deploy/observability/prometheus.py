"""A running Prometheus, asked as its page asks it."""

import json
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

PATIENCE_SECONDS = 90.0

Samples = list[tuple[dict[str, str], float]]


Answer = TypeVar("Answer")


def until(ask: Callable[[], Answer], fits: Callable[[Answer], bool]) -> Answer:
    """What is answered once it fits; AssertionError with the last answer if it never does."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not fits(answer := ask()):
        assert time.monotonic() < end, answer
        time.sleep(0.5)
    return answer


@dataclass(frozen=True)
class Prometheus:
    """At host:port."""

    address: str

    def query(self, expression: str) -> Samples:
        """Labels and value of each series."""
        rows = self._asked("query", query=expression)["result"]
        return [(row["metric"], float(row["value"][1])) for row in rows]

    def value(self, expression: str) -> float:
        """The value of the one series that there is; 0 if there is none."""
        found = self.query(expression)
        assert len(found) <= 1, found
        return found[0][1] if found else 0.0

    def firing(self, alert: str) -> list[str]:
        """The jobs for which it fires now."""
        alerts = self._asked("alerts")["alerts"]
        return [
            one["labels"]["job"]
            for one in alerts
            if one["state"] == "firing" and one["labels"]["alertname"] == alert
        ]

    def _asked(self, what: str, **form: str) -> dict[str, Any]:
        url = f"http://{self.address}/api/v1/{what}?{urllib.parse.urlencode(form)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return dict(json.load(answer)["data"])
