"""`demiurge conformance predictor` passes what keeps to the contract, and catches what does not."""

import pytest

from services.cli.checks.check import Outcome, Result
from services.cli.checks.inspection import CHECKS, inspected, subject_at
from services.cli.checks.subject import Limits
from services.runtime.channels import open_blocking_channel
from services.runtime.settings import RuntimeSettings
from tests.servers import broken_predictors
from tests.servers.predictors import Deterministic, Sound, served

PATIENT = Limits(answer_seconds=60, free_seconds=20, abandon_seconds=0.05)
# For those that do not answer in time.
HASTY = Limits(answer_seconds=3, free_seconds=1, abandon_seconds=0.2)

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
NOT_IN_TIME = {
    broken_predictors.DeadlineIgnored,
    broken_predictors.CancellationIgnored,
    broken_predictors.Deadlock,
}


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


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.__name__)
def test_a_defect_is_caught_by_its_check_and_by_no_other(defect: type[Sound]) -> None:
    with served(defect()) as address:
        results = results_at(address, HASTY if defect in NOT_IN_TIME else PATIENT)
    assert list(failures(results)) == [DEFECTS[defect]], failures(results)


def test_every_check_catches_some_defect() -> None:
    assert {check.name for check in CHECKS} == set(DEFECTS.values())
