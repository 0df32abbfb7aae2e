"""Alerts fire in their cases, and lead to the part of the runbook that says what to do."""

import re
import shutil
import subprocess

import pytest

from tests.deploy.observability.rules import (
    CASES,
    CONFIGURATION,
    RULES,
    RUNBOOK,
    cases,
    rules,
    sections,
)


@pytest.fixture
def promtool() -> str:
    found = shutil.which("promtool")
    if not found:
        pytest.skip("promtool is not installed: Debian's package prometheus has it")
    return found


def test_prometheus_takes_the_configuration_and_its_rules(promtool: str) -> None:
    told = subprocess.run(
        [promtool, "check", "config", CONFIGURATION], capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stdout + told.stderr


def test_each_alert_fires_in_its_case_and_keeps_quiet_in_the_others(promtool: str) -> None:
    told = subprocess.run(
        [promtool, "test", "rules", CASES], capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stdout + told.stderr


def test_there_is_a_case_for_each_alert() -> None:
    fires = {case["alertname"] for case in cases() if case["exp_alerts"]}
    assert fires == {rule["alert"] for rule in rules("alert")}


@pytest.mark.parametrize("rule", rules("alert"), ids=lambda rule: str(rule["alert"]))
def test_an_alert_says_what_is_wrong_how_bad_it_is_and_where_to_read_on(
    rule: dict[str, dict[str, str]],
) -> None:
    assert rule["for"]
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["annotations"]["summary"].endswith(".")
    page, _, place = rule["annotations"]["runbook"].partition("#")
    assert page == "docs/runbook.md"
    assert f"`{rule['alert']}`" in sections(RUNBOOK)[place]


def test_each_alert_of_the_runbook_exists() -> None:
    named = set(re.findall(r"Alerts? (`\w+`)(?:[^.:]* and (`\w+`))?", RUNBOOK.read_text()))
    told = {name.strip("`") for pair in named for name in pair if name}
    assert told == {rule["alert"] for rule in rules("alert")}


def test_each_link_within_the_runbook_leads_somewhere() -> None:
    there = sections(RUNBOOK)
    wanted = re.findall(r"\]\(#([^)]+)\)", RUNBOOK.read_text())
    assert wanted
    assert [place for place in wanted if place not in there] == []


def test_each_recorded_series_is_used() -> None:
    text = RULES.read_text()
    for rule in rules("record"):
        assert text.count(rule["record"]) > 1, rule["record"]
