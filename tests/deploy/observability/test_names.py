"""What rules and pages say of metrics is what the services tell."""

import re

import pytest
from prometheus_client.metrics_core import Metric

from services.runtime.metrics import Metrics
from tests.deploy.observability.rules import OBSERVABILITY, RULES, RUNBOOK

NAMED = re.compile(r"\bdemiurge_[a-z0-9_]+")
# What a family is called when it is asked for.
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "info": ("_info",)}


@pytest.fixture(scope="module")
def families() -> list[Metric]:
    found = [family for family in Metrics().registry.collect() if "demiurge" in family.name]
    assert len(found) > 15
    return found


@pytest.mark.parametrize("page", [RULES, RUNBOOK, OBSERVABILITY], ids=lambda page: page.name)
def test_each_metric_that_is_named_exists(page, families: list[Metric]) -> None:
    asked = {family.name + suffix for family in families for suffix in suffixes(family)}
    # A table names a histogram once.
    known = asked | {family.name for family in families if family.type == "histogram"}
    # Volumes are named so, too.
    named = set(NAMED.findall(page.read_text())) - {"demiurge_minio", "demiurge_qdrant"}
    assert named
    assert named - known == set()


def test_each_metric_has_its_line_in_the_table(families: list[Metric]) -> None:
    lines = [line.split("|")[1] for line in OBSERVABILITY.read_text().splitlines() if "|" in line]
    told = " ".join(lines)
    names = [
        family.name + (suffixes(family)[0] if family.type != "histogram" else "")
        for family in families
    ]
    assert [name for name in names if f"`{name}" not in told] == []


def suffixes(family: Metric) -> tuple[str, ...]:
    return SUFFIXES.get(family.type, ("",))
