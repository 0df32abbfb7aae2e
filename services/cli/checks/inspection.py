"""The contract of a predictor as a list of checks, and one server held to it."""

from collections.abc import Iterator

import grpc

from services.cli.checks import answers, chance, refusals, serving, timing
from services.cli.checks.check import Check, Outcome, Result, check_of
from services.cli.checks.outcome import Broken, NotApplicable
from services.cli.checks.subject import Limits, Subject, said

DESCRIPTION = check_of(serving.description)
CHECKS: tuple[Check, ...] = (
    check_of(serving.health),
    check_of(serving.list_order),
    check_of(serving.list_pages, needs=[serving.list_order]),
    check_of(serving.list_page_size),
    DESCRIPTION,
    check_of(serving.get_as_listed),
    check_of(answers.steps),
    check_of(answers.pieces),
    check_of(answers.finite),
    check_of(answers.settings_kept),
    check_of(chance.repeatable),
    check_of(answers.feature_order, needs=[chance.repeatable]),
    check_of(answers.last_frames, needs=[chance.repeatable]),
    check_of(answers.version_told),
    check_of(answers.version_asked, needs=[chance.repeatable]),
    check_of(chance.seed, needs=[chance.repeatable]),
    check_of(chance.temperature_0, needs=[chance.repeatable]),
    check_of(chance.temperature_refused),
    check_of(refusals.temperature_bounds),
    check_of(refusals.unknown_predictor),
    check_of(refusals.no_predictor),
    check_of(refusals.missing_window),
    check_of(refusals.short_window),
    check_of(refusals.oversized_window),
    check_of(refusals.wrong_bytes),
    check_of(refusals.wrong_settings),
    check_of(refusals.wrong_features),
    check_of(refusals.values_not_finite),
    check_of(refusals.no_steps),
    check_of(refusals.too_many_steps),
    check_of(timing.deadline),
    check_of(timing.cancellation),
    check_of(timing.health_at_work, needs=[serving.health]),
    check_of(timing.concurrency, needs=[chance.repeatable]),
)


def subject_at(channel: grpc.Channel, predictor_id: str, limits: Limits) -> Subject:
    """The predictor of that id, the first listed if it is empty.

    Raises Broken if the server lists none such, or cannot be reached.
    """
    there = serving.listed(channel, limits.answer_seconds)
    for described in there:
        if predictor_id in {"", described.id, described.version_id}:
            return Subject(channel, described, there, limits)
    ids = ", ".join(predictor.id for predictor in there) or "none"
    raise Broken(f"predictor {predictor_id!r}" if predictor_id else "ListPredictors", f"{ids}")


def inspected(subject: Subject) -> Iterator[Result]:
    """Every check in turn; the rest is skipped once the server answers no more."""
    failed: set[str] = set()
    gone = ""
    for check in CHECKS:
        missing = next((name for name in check.needs if name in failed), "")
        if gone or missing:
            why = gone or f"means nothing while {missing} fails"
            yield Result(check, Outcome.SKIPPED, came=why)
            continue
        result = _looked(check, subject)
        yield result
        if result.outcome is not Outcome.FAILED:
            continue
        failed.add(check.name)
        if check is DESCRIPTION:
            gone = f"means nothing while {check.name} fails"
        elif not subject.answers():
            gone = "the server answers no more"


def _looked(check: Check, subject: Subject) -> Result:
    try:
        check.look(subject)
    except Broken as found:
        return Result(check, Outcome.FAILED, found.asked, found.came)
    except NotApplicable as reason:
        return Result(check, Outcome.SKIPPED, came=str(reason))
    except grpc.RpcError as error:
        return Result(check, Outcome.FAILED, "a call", said(error))
    return Result(check, Outcome.OK)
