"""A running Prometheus, asked as its page asks it."""

import json
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

PATIENCE_SECONDS = 90.0

Samples = list[tuple[dict[str, str], float]]


@dataclass(frozen=True)
class Prometheus:
    """At host:port."""

    address: str

    def query(self, expression: str) -> Samples:
        """Labels and value of each series."""
        return [(row["metric"], float(row["value"][1])) for row in self._asked(expression)]

    def value(self, expression: str) -> float:
        """The value of the one series that there is; 0 if there is none."""
        found = self.query(expression)
        assert len(found) <= 1, found
        return found[0][1] if found else 0.0

    def until(
        self, expression: str, fits: Callable[[Samples], bool], seconds: float = PATIENCE_SECONDS
    ) -> Samples:
        """What is answered once it fits; AssertionError with the last answer if it never does."""
        end = time.monotonic() + seconds
        while not fits(found := self.query(expression)):
            assert time.monotonic() < end, f"{expression}: {found}"
            time.sleep(0.5)
        return found

    def _asked(self, expression: str) -> list[dict[str, Any]]:
        form = urllib.parse.urlencode({"query": expression})
        url = f"http://{self.address}/api/v1/query?{form}"
        # An address of the test's own.
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310
            return list(json.load(answer)["data"]["result"])
