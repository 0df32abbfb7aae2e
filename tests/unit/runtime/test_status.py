import grpc
import pytest

from services import errors
from services.errors import DemiurgeError
from services.runtime.status import (
    CODES,
    FieldViolation,
    InvalidRequestError,
    code_of,
    error_from_status,
    status_of,
)


def tree(kind: type[DemiurgeError] = DemiurgeError) -> list[type[DemiurgeError]]:
    return [kind, *(below for child in kind.__subclasses__() for below in tree(child))]


OURS = [kind for kind in tree() if kind.__module__ == errors.__name__]


@pytest.mark.parametrize("kind", tree())
def test_every_error_has_a_code_of_its_own_or_of_its_family(kind: type[DemiurgeError]) -> None:
    family = [above for above in kind.__mro__ if above in CODES]
    assert family
    if kind is not DemiurgeError:
        assert family[0] is not DemiurgeError, "a new branch of the tree needs a code"


def test_reasons_are_unique() -> None:
    assert len({kind.reason for kind in OURS}) == len(OURS)


@pytest.mark.parametrize("kind", OURS)
def test_every_error_comes_back_as_it_was_raised(kind: type[DemiurgeError]) -> None:
    status = status_of(kind("the wren is mute", culprit="audio/birds/wren.wav"))
    assert status.code == code_of(kind("x")).value[0]
    back = error_from_status(status)
    assert type(back) is kind
    assert (back.message, back.culprit) == ("the wren is mute", "audio/birds/wren.wav")


def test_a_request_that_breaks_rules_is_invalid_input_to_clients() -> None:
    error = InvalidRequestError([FieldViolation("track.values", "is too long")])
    assert code_of(error) is grpc.StatusCode.INVALID_ARGUMENT
    back = error_from_status(status_of(error))
    assert type(back) is errors.InvalidInputError
    assert (back.message, back.culprit) == ("track.values: is too long", "track.values")


def test_statuses_stay_small_enough_for_metadata() -> None:
    violations = [FieldViolation("鳥" * 50, "is wrong") for _ in range(1000)]
    for error in (
        errors.NotFoundError("鳥" * 5000, culprit="x" * 5000),
        InvalidRequestError(violations),
    ):
        status = status_of(error)
        assert len(status.SerializeToString()) < 5000
        assert status.message.endswith("…")


def test_a_status_of_somebody_else_is_not_taken_for_ours() -> None:
    status = status_of(errors.BusyError("x"))
    status.ClearField("details")
    assert error_from_status(status) is None
