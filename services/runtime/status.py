"""The error tree on the wire: google.rpc.Status with ErrorInfo, and the way back.

A client gets the class, message and culprit that were raised, by `ErrorInfo.reason`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import grpc
from google.rpc import error_details_pb2, status_pb2

from services import errors
from services.errors import DemiurgeError, InvalidInputError

DOMAIN = "demiurge"
DETAILS_KEY = "grpc-status-details-bin"
# Statuses travel in trailing metadata, of which peers take 8 KiB by default: message twice, one of
# them percent-encoded, and details in base64.
MAX_MESSAGE_BYTES = 1024
MAX_VIOLATIONS = 10

CODES: dict[type[DemiurgeError], grpc.StatusCode] = {
    DemiurgeError: grpc.StatusCode.INTERNAL,
    InvalidInputError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFoundError: grpc.StatusCode.NOT_FOUND,
    errors.ConflictError: grpc.StatusCode.ALREADY_EXISTS,
    errors.NotReadyError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.CorruptObjectError: grpc.StatusCode.DATA_LOSS,
    errors.BusyError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.StorageFullError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.UnavailableError: grpc.StatusCode.UNAVAILABLE,
    errors.TimeExceededError: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.CancelledError: grpc.StatusCode.CANCELLED,
    errors.UnauthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    errors.ConfigurationError: grpc.StatusCode.FAILED_PRECONDITION,
}
# What a code means where no ErrorInfo says more: the answer of gRPC itself, or of a proxy.
# RESOURCE_EXHAUSTED is not among them: it may be a message too large, which waiting does not mend.
_PLAIN: dict[grpc.StatusCode, type[DemiurgeError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidInputError,
    grpc.StatusCode.NOT_FOUND: errors.NotFoundError,
    grpc.StatusCode.ALREADY_EXISTS: errors.ConflictError,
    grpc.StatusCode.UNAVAILABLE: errors.UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.TimeExceededError,
    grpc.StatusCode.CANCELLED: errors.CancelledError,
    grpc.StatusCode.UNAUTHENTICATED: errors.UnauthenticatedError,
}


@dataclass(frozen=True)
class FieldViolation:
    """One rule of the contract that a field breaks; `field` as "track.values", "sources[1].key"."""

    field: str
    description: str


class InvalidRequestError(InvalidInputError):
    """A message breaks rules of the contract; it reaches clients as InvalidInputError."""

    def __init__(self, violations: Sequence[FieldViolation]) -> None:
        listed = "; ".join(f"{found.field}: {found.description}" for found in violations)
        super().__init__(listed, culprit=violations[0].field)
        self.violations = tuple(violations)


def code_of(error: DemiurgeError) -> grpc.StatusCode:
    """The canonical code of an error: that of the nearest class which has one."""
    return next(CODES[kind] for kind in type(error).__mro__ if kind in CODES)


def status_of(error: DemiurgeError) -> status_pb2.Status:
    """The status that a client gets."""
    status = status_pb2.Status(code=code_of(error).value[0], message=_shortened(error.message))
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN)
    if error.culprit:
        info.metadata["culprit"] = _shortened(error.culprit)
    status.details.add().Pack(info)
    if isinstance(error, InvalidRequestError):
        request = error_details_pb2.BadRequest()
        for violation in error.violations[:MAX_VIOLATIONS]:
            request.field_violations.add(field=violation.field, description=violation.description)
        status.details.add().Pack(request)
    return status


def error_from_status(status: status_pb2.Status) -> DemiurgeError | None:
    """The error that a status of ours stands for; None for others."""
    info = error_details_pb2.ErrorInfo()
    for detail in status.details:
        if detail.Unpack(info) and info.domain == DOMAIN:
            kind = _reasons().get(info.reason, DemiurgeError)
            return kind(status.message, culprit=info.metadata.get("culprit", ""))
    return None


def error_from_rpc(error: grpc.RpcError) -> DemiurgeError:
    """The error behind a failed call, of either kind of channel.

    Keeps class, message and culprit where a Demiurge service raised it; otherwise the code says
    the class.
    """
    # Both kinds of channel raise errors that are calls too, which RpcError's type does not say.
    code: grpc.StatusCode = getattr(error, "code", lambda: grpc.StatusCode.UNKNOWN)()
    message = getattr(error, "details", lambda: "")() or code.name
    for key, value in getattr(error, "trailing_metadata", tuple)() or ():
        if key == DETAILS_KEY:
            found = error_from_status(status_pb2.Status.FromString(value))
            if found:
                return found
    return _PLAIN.get(code, DemiurgeError)(message)


@contextmanager
def remote_errors() -> Iterator[None]:
    """Raises what failed calls inside stand for, in place of grpc.RpcError."""
    try:
        yield
    except grpc.RpcError as error:
        raise error_from_rpc(error) from error


def _reasons() -> dict[str, type[DemiurgeError]]:
    return {
        kind.reason: kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, DemiurgeError)
    }


def _shortened(text: str) -> str:
    encoded = text.encode(errors="replace")
    if len(encoded) <= MAX_MESSAGE_BYTES:
        return encoded.decode()
    return encoded[: MAX_MESSAGE_BYTES - 3].decode(errors="ignore") + "…"
