"""`demiurge conformance predictor` passes what keeps to the contract, and catches what does not."""

import json
import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click.testing
import pytest
from grpc import StatusCode
from typer.testing import CliRunner

from services.cli.checks.check import Outcome, Result
from services.cli.checks.inspection import CHECKS, inspected, subject_at
from services.cli.checks.outcome import Broken
from services.cli.checks.subject import Limits
from services.cli.main import app
from services.errors import ConfigurationError, DemiurgeError, UnavailableError
from services.runtime.channels import open_blocking_channel
from services.runtime.settings import RuntimeSettings
from tests.servers import broken_predictors
from tests.servers.predictors import Deterministic, Sound, served

PATIENT = Limits(answer_seconds=60, free_seconds=20, abandon_seconds=0.05)
# For those that do not answer in time.
HASTY = Limits(answer_seconds=2.5, free_seconds=1.2, abandon_seconds=0.2)

DEFECTS = {
    broken_predictors.NoHealth: "health",
    broken_predictors.NotListedByName: "health",
    broken_predictors.ListedInDisorder: "list-order",
    broken_predictors.PagesIgnored: "list-pages",
    broken_predictors.EndlessPages: "list-pages",
    broken_predictors.AnyPageSize: "list-page-size",
    broken_predictors.NoHash: "description",
    broken_predictors.DescribedTwoWays: "get-as-listed",
    broken_predictors.OneFrameTooFew: "steps",
    broken_predictors.OneHugeTrack: "pieces",
    broken_predictors.NotANumber: "finite",
    broken_predictors.AnotherHop: "settings-kept",
    broken_predictors.NeverTheSame: "repeatable",
    broken_predictors.OwnOrder: "feature-order",
    broken_predictors.ByPosition: "feature-order",
    broken_predictors.LooksFurtherBack: "last-frames",
    broken_predictors.NoVersion: "version-told",
    broken_predictors.VersionUnknown: "version-asked",
    broken_predictors.SeedIgnored: "seed",
    broken_predictors.AlwaysWarm: "temperature-0",
    broken_predictors.WarmAllTheSame: "temperature-refused",
    broken_predictors.BelowZero: "temperature-bounds",
    broken_predictors.UnknownFails: "unknown-predictor",
    broken_predictors.NobodyIsTheFirst: "no-predictor",
    broken_predictors.MissingWindowFails: "missing-window",
    broken_predictors.ShortWindowFails: "short-window",
    broken_predictors.AnySize: "oversized-window",
    broken_predictors.BytesUncounted: "wrong-bytes",
    broken_predictors.AnyHop: "wrong-settings",
    broken_predictors.UnknownFeaturesIgnored: "wrong-features",
    broken_predictors.TakesInfinity: "values-not-finite",
    broken_predictors.NoStepsIsOne: "no-steps",
    broken_predictors.AnyNumberOfSteps: "too-many-steps",
    broken_predictors.DeadlineIgnored: "deadline",
    broken_predictors.CancellationIgnored: "cancellation",
    broken_predictors.BusyIsDead: "health-at-work",
    broken_predictors.Deadlock: "concurrency",
    broken_predictors.MixedUp: "concurrency",
}
NOT_IN_TIME = (
    broken_predictors.DeadlineIgnored,
    broken_predictors.CancellationIgnored,
    broken_predictors.Deadlock,
)


def results_at(address: str, limits: Limits = PATIENT) -> list[Result]:
    with open_blocking_channel(address, RuntimeSettings()) as channel:
        return list(inspected(subject_at(channel, "", limits)))


def failures(results: list[Result]) -> dict[str, str]:
    return {
        result.check.name: f"{result.asked}: {result.came}"
        for result in results
        if result.outcome is Outcome.FAILED
    }


@pytest.mark.parametrize("kind", [Sound, Deterministic])
def test_a_server_that_keeps_to_the_contract_passes(kind: type[Sound]) -> None:
    with served(kind()) as address:
        results = results_at(address)
    assert failures(results) == {}
    skipped = {result.check.name for result in results if result.outcome is Outcome.SKIPPED}
    assert skipped == {"temperature-refused" if kind.stochastic else "seed"}


@pytest.fixture(scope="module")
def waited_for() -> Mapping[type[Sound], list[Result]]:
    """What came of those that do not answer in time, all waited for at once."""

    def results(defect: type[Sound]) -> list[Result]:
        with served(defect()) as address:
            return results_at(address, HASTY)

    with ThreadPoolExecutor(len(NOT_IN_TIME)) as threads:
        return dict(zip(NOT_IN_TIME, threads.map(results, NOT_IN_TIME), strict=True))


@pytest.mark.parametrize("defect", NOT_IN_TIME, ids=lambda defect: defect.__name__)
def test_a_defect_in_time_is_caught_by_its_check_and_by_no_other(
    defect: type[Sound], waited_for: Mapping[type[Sound], list[Result]]
) -> None:
    results = waited_for[defect]
    assert list(failures(results)) == [DEFECTS[defect]], failures(results)


@pytest.mark.parametrize(
    "defect", [each for each in DEFECTS if each not in NOT_IN_TIME], ids=lambda each: each.__name__
)
def test_a_defect_is_caught_by_its_check_and_by_no_other(defect: type[Sound]) -> None:
    with served(defect()) as address:
        results = results_at(address)
    assert list(failures(results)) == [DEFECTS[defect]], failures(results)


def test_every_check_catches_some_defect() -> None:
    assert {check.name for check in CHECKS} == set(DEFECTS.values())


def test_a_server_that_predicts_nothing_is_told_in_bounded_time() -> None:
    with served(broken_predictors.NeverAnswers()) as address:
        results = results_at(address, Limits(answer_seconds=0.5))
    assert list(failures(results)) == ["steps"]
    assert "DEADLINE_EXCEEDED" in failures(results)["steps"]
    rest = [result for result in results if result.came == "the server answers no more"]
    assert [result.outcome for result in rest] == [Outcome.SKIPPED] * len(rest)
    assert rest[-1] is results[-1]


def test_a_list_without_an_end_is_told_in_bounded_time() -> None:
    with (
        served(broken_predictors.EndlessList()) as address,
        pytest.raises(Broken, match="no last page"),
    ):
        results_at(address, Limits(answer_seconds=0.5))


def conformance(*arguments: str) -> click.testing.Result:
    return CliRunner().invoke(app, ["conformance", "predictor", *arguments])


def refused(*arguments: str) -> None:
    error = conformance(*arguments).exception
    assert isinstance(error, DemiurgeError)
    raise error


def test_the_command_tells_each_check_and_what_fails() -> None:
    with served(broken_predictors.OneFrameTooFew()) as address:
        done = conformance(address)
    assert done.exit_code == 1
    lines = done.output.splitlines()
    for check in CHECKS:
        [line] = [line for line in lines if line.split()[1] == check.name]
        assert line.endswith(check.claim)
    failed = next(place for place, line in enumerate(lines) if line.startswith("FAILED"))
    assert lines[failed].split()[1] == "steps"
    assert "24 steps after 6 frames" in lines[failed + 1]
    assert "23 frames" in lines[failed + 2]
    assert lines[-1] == "32 ok, 1 FAILED, 1 skipped"


def test_the_command_looks_at_the_address_that_is_set_and_at_the_predictor_that_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with served(Deterministic()) as address:
        monkeypatch.setenv("DEMIURGE_PREDICTOR_ADDRESS", address)
        done = conformance("--predictor", "hum", "--json")
        with pytest.raises(UnavailableError, match="drift, hold, hum"):
            refused("--predictor", "nobody")
    assert done.exit_code == 0
    told = json.loads(done.output)
    assert told["passed"]
    assert [check["name"] for check in told["checks"]] == [check.name for check in CHECKS]


class Listener(Deterministic):
    """It remembers the tokens that it is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens: set[str] = set()

    def ListPredictors(self, _: Any, context: Any) -> Any:  # noqa: N802
        sent = dict(context.invocation_metadata())
        self.tokens.add(sent.get("authorization", ""))
        # Nothing more is looked at.
        return context.abort(StatusCode.UNAVAILABLE, "closed")


def test_a_token_goes_to_the_address_that_it_is_set_for_and_to_no_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "ours").write_text("ours")
    (tmp_path / "theirs").write_text("theirs")
    monkeypatch.setenv("DEMIURGE_PREDICTOR_TOKEN_FILE", str(tmp_path / "ours"))
    ours, theirs, named = Listener(), Listener(), Listener()
    with served(ours) as own, served(theirs) as other, served(named) as third:
        monkeypatch.setenv("DEMIURGE_PREDICTOR_ADDRESS", own)
        for arguments in ((), (other,), (third, "--token-file", str(tmp_path / "theirs"))):
            with pytest.raises(UnavailableError, match="closed"):
                refused(*arguments)
    assert (ours.tokens, theirs.tokens, named.tokens) == (
        {"Bearer ours"},
        {""},
        {"Bearer theirs"},
    )


def test_nobody_at_the_address_is_told_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEMIURGE_PREDICTOR_ADDRESS", raising=False)
    with pytest.raises(ConfigurationError, match="DEMIURGE_PREDICTOR_ADDRESS"):
        refused()
    # It takes connections and says nothing.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(UnavailableError, match=address):
            refused(address, "--timeout", "0.5")
