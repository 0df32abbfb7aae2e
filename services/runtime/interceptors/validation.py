"""Holds every request to the rules of the contract (buf.validate)."""

from typing import Any

from protovalidate import Validator, Violation
from typing_extensions import override

from services.runtime.interceptors.around import AroundCall
from services.runtime.status import FieldViolation, InvalidRequestError


class ValidationInterceptor(AroundCall):
    """Raises InvalidRequestError naming the fields; messages of a stream one by one."""

    def __init__(self) -> None:
        self._validator = Validator()

    @override
    def check(self, request: Any) -> None:
        violations = self._validator.collect_violations(request)
        if violations:
            raise InvalidRequestError(
                [FieldViolation(_path(found), found.proto.message) for found in violations]
            )


def _path(violation: Violation) -> str:
    """The field's path, as "matches.sources[1].key"."""
    if violation.proto.field is None:
        return "request"
    return ".".join(
        element.field_name + (f"[{element.subscript.value!r}]" if element.subscript else "")
        for element in violation.proto.field.elements
    )
