"""Calls that are given up, and calls that come together."""

import time
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
from demiurge.predictor.v1 import predictor_service_pb2 as pb
from grpc_health.v1 import health_pb2

from services.cli.checks.outcome import Broken
from services.cli.checks.serving import health_of
from services.cli.checks.subject import STEPS, Subject, code_of, joined, said, summary

TOGETHER = 8


def deadline(subject: Subject) -> None:
    """The server stops at the deadline of a call, and is soon free again."""
    for call in _long_calls(subject, timeout=subject.limits.abandon_seconds):
        error = call.exception()
        if error and code_of(error) not in {
            grpc.StatusCode.DEADLINE_EXCEEDED,
            grpc.StatusCode.RESOURCE_EXHAUSTED,
        }:
            raise Broken(f"{_long(subject)} with a deadline", said(error))
    _soon_free(subject, "a deadline passed")


def cancellation(subject: Subject) -> None:
    """A call that is cancelled stops, and the server is soon free again."""
    calls = _long_calls(subject, timeout=subject.limits.answer_seconds)
    time.sleep(subject.limits.abandon_seconds)
    for call in calls:
        call.cancel()
    _soon_free(subject, "the caller went away")


def health_at_work(subject: Subject) -> None:
    """Health is told even while predictions are made."""
    calls = _long_calls(subject, timeout=subject.limits.answer_seconds)
    try:
        if health_of(subject, "") != health_pb2.HealthCheckResponse.SERVING:
            raise Broken(f"health during {_long(subject)}", "not SERVING")
    finally:
        for call in calls:
            call.cancel()
        subject.answers()


def concurrency(subject: Subject) -> None:
    """Calls at once are answered as one by one; RESOURCE_EXHAUSTED may send some away."""
    most = subject.described.max_steps
    requests = [
        subject.request(subject.window(seed=seed), steps=min(STEPS + seed, most), seed=seed)
        for seed in range(TOGETHER)
    ]
    predict = subject.stub.PredictDescriptors
    timeout = subject.limits.answer_seconds
    calls: list[Any] = [predict.future(request, timeout=timeout) for request in requests]
    asked, together = f"{TOGETHER} predictions at once", {}
    for number, call in enumerate(calls):
        error = call.exception()
        if error is None:
            together[number] = joined(call.result())
        elif code_of(error) != grpc.StatusCode.RESOURCE_EXHAUSTED:
            raise Broken(asked, said(error))
    if not together:
        raise Broken(asked, "all were sent away")
    for number, values in together.items():
        alone = subject.values(requests[number])
        if not np.array_equal(values, alone, equal_nan=True):
            raise Broken(asked, f"{summary(requests[number])}: another answer than alone")


def _long_calls(subject: Subject, timeout: float) -> list[Any]:
    start: Callable[..., Any] = subject.stub.PredictDescriptors.future
    request: pb.PredictDescriptorsRequest = subject.request(steps=subject.described.max_steps)
    return [start(request, timeout=timeout) for _ in range(TOGETHER)]


def _long(subject: Subject) -> str:
    return f"{TOGETHER} predictions of {subject.described.max_steps} steps"


def _soon_free(subject: Subject, when: str) -> None:
    if not subject.free_again():
        asked = f"1 step, after {when} during {_long(subject)}"
        raise Broken(asked, f"no answer in {subject.limits.free_seconds:g} s")
