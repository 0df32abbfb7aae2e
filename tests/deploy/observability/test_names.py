"""What rules and pages say of metrics is what the services tell."""

import re
from pathlib import Path

import pytest
from prometheus_client.metrics_core import Metric

from services.cli.composition import build, open_ground
from services.runtime.settings import NOUNS, RuntimeSettings
from tests.deploy.observability.rules import OBSERVABILITY, RULES, RUNBOOK

NAMED = re.compile(r"\bdemiurge_[a-z0-9_]+")
# What a family is called when it is asked for.
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "info": ("_info",)}
# A line of the table: a metric, and who has it.
LINE = re.compile(r"^\| `(demiurge_\w+)` \| ([\w, ]+) \|", re.MULTILINE)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Metric]]:
    """What each noun has at its /metrics, when it serves alone."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEMIURGE_QUERY_FOLDER", str(folder / "query"))
        runtime = RuntimeSettings(home=folder, address="127.0.0.1:1")
        grounds = {noun: open_ground(runtime) for noun in NOUNS}
        for noun, ground in grounds.items():
            build(noun, ground)
    return {
        noun: [one for one in ground.metrics.registry.collect() if "demiurge" in one.name]
        for noun, ground in grounds.items()
    }


@pytest.mark.parametrize("page", [RULES, RUNBOOK, OBSERVABILITY], ids=lambda page: page.name)
def test_each_metric_that_is_named_exists(page: Path, told: dict[str, list[Metric]]) -> None:
    families = [family for found in told.values() for family in found]
    asked = {family.name + suffix for family in families for suffix in suffixes(family)}
    # A table names a histogram once.
    known = asked | {family.name for family in families if family.type == "histogram"}
    # Volumes are named so, too.
    named = set(NAMED.findall(page.read_text())) - {"demiurge_minio", "demiurge_qdrant"}
    assert named
    assert named - known == set()


@pytest.mark.parametrize("noun", NOUNS)
def test_a_noun_tells_what_the_table_says_that_it_does_and_nothing_else(
    noun: str, told: dict[str, list[Metric]]
) -> None:
    told_by = dict(LINE.findall(OBSERVABILITY.read_text()))
    assert len(told_by) > 15
    names = {
        family.name + (suffixes(family)[0] if family.type != "histogram" else "")
        for family in told[noun]
    }
    assert names == {name for name, who in told_by.items() if who in {"all", noun}}


def suffixes(family: Metric) -> tuple[str, ...]:
    return SUFFIXES.get(family.type, ("",))
