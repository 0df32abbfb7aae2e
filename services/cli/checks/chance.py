"""Chance: the same request has the same answer, and seed and temperature do what they say."""

import numpy as np

from services.cli.checks.outcome import Broken, NotApplicable
from services.cli.checks.subject import STEPS, Subject, same, summary

SEEDS = (7, 8, 2**64 - 1)


def repeatable(subject: Subject) -> None:
    """The same request always gets the same answer, bit for bit."""
    request = subject.request()
    first, second = subject.values(request), subject.values(request)
    if not np.array_equal(first, second, equal_nan=True):
        raise Broken(f"{summary(request)}, twice", "two answers")


def seed(subject: Subject) -> None:
    """At temperature 1 a stochastic predictor goes on otherwise by another seed."""
    if not subject.described.stochastic:
        raise NotApplicable("it is deterministic")
    count = min(8 * STEPS, subject.described.max_steps)
    answers = [subject.values(subject.request(steps=count, seed=number)) for number in SEEDS]
    if all(np.array_equal(answers[0], other, equal_nan=True) for other in answers[1:]):
        raise Broken(f"the seeds {SEEDS} at temperature 1", "one answer")


def temperature_0(subject: Subject) -> None:
    """At temperature 0 no seed changes the answer."""
    requests = [subject.request(seed=number, temperature=0) for number in SEEDS]
    first, *others = [subject.values(request) for request in requests]
    if not all(same(first, other) for other in others):
        raise Broken(f"the seeds {SEEDS} at temperature 0", "different answers")


def temperature_refused(subject: Subject) -> None:
    """A deterministic predictor refuses a temperature above 0 by INVALID_ARGUMENT."""
    if subject.described.stochastic:
        raise NotApplicable("it is stochastic")
    request = subject.request(temperature=0.5)
    subject.refused(subject.stub.PredictDescriptors, request, "temperature 0.5")
