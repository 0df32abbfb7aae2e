"""The alert rules, their cases and the pages that they lead to, as GitHub shows them."""

import re
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.stack import ROOT

RULES = ROOT / "deploy" / "observability" / "alerts.yml"
CONFIGURATION = RULES.with_name("prometheus.yml")
CASES = Path(__file__).with_name("alerts_test.yml")
RUNBOOK = ROOT / "docs" / "runbook.md"
OBSERVABILITY = ROOT / "docs" / "observability.md"
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def rules(kind: str) -> list[dict[str, Any]]:
    """Every rule that has `kind`: "alert" or "record"."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"] if kind in rule]


def cases() -> list[dict[str, Any]]:
    """Every expectation of one alert at one time."""
    tests = yaml.safe_load(CASES.read_text())["tests"]
    return [case for test in tests for case in test["alert_rule_test"]]


def sections(page: Path) -> dict[str, str]:
    """The text below each heading, by the anchor that GitHub gives it."""
    parts = _HEADING.split(page.read_text())
    return {anchor(title): text for title, text in zip(parts[1::2], parts[2::2], strict=True)}


def anchor(title: str) -> str:
    """GitHub's: lower case, no punctuation but hyphens and underscores, hyphens for spaces."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
