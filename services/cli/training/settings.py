"""The settings of a training, whatever its family: by name, documented, replaced, kept as JSON.

They are frozen dataclasses, nested, whose fields are followed by a line of documentation each.
"""

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from difflib import get_close_matches
from itertools import pairwise
from typing import Any, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError

from services.errors import CorruptObjectError, InvalidInputError

S = TypeVar("S")


@dataclass(frozen=True)
class Setting:
    """One value that a training can be told."""

    path: str
    """Where it stands, as "generator.mel.hop_length"."""
    kind: Any
    """Its type."""
    documentation: str
    """What it does."""


def settings_of(kind: type[Any], prefix: str = "") -> Iterator[Setting]:
    """Every value of a dataclass, those of the dataclasses within it in their place."""
    told = _documentation(kind)
    hints = get_type_hints(kind)
    for each in fields(kind):
        path = f"{prefix}{each.name}"
        if is_dataclass(hints[each.name]):
            yield from settings_of(hints[each.name], f"{path}.")
        else:
            yield Setting(path, hints[each.name], told.get(each.name, ""))


def value_of(settings: Any, path: str) -> Any:
    """The value at a path."""
    for name in path.split("."):
        settings = getattr(settings, name)
    return settings


def overridden(settings: S, overrides: Mapping[str, Any]) -> S:
    """The settings with other values, by path; texts are read as what their setting is.

    A sequence may be a text with commas: "8,8,2,2". Raises InvalidInputError naming the setting,
    and the nearest one for one that there is not.
    """
    known = {setting.path for setting in settings_of(type(settings))}
    changed = asdict(settings)  # type: ignore[call-overload]
    for path, value in overrides.items():
        if path not in known:
            close = get_close_matches(path, known, n=1, cutoff=0.0)
            raise InvalidInputError(
                f"no such training setting: {path}; did you mean {''.join(close)}?", culprit=path
            )
        *groups, name = path.split(".")
        group = changed
        for each in groups:
            group = group[each]
        group[name] = _read(value, group[name])
    try:
        return TypeAdapter(type(settings)).validate_python(changed)
    except ValidationError as error:
        path, problem = _first(error)
        raise InvalidInputError(f"{path}: {problem}", culprit=path) from None


def to_json(settings: Any) -> dict[str, Any]:
    """All values, nested, as JSON has them."""
    plain: dict[str, Any] = TypeAdapter(type(settings)).dump_python(settings, mode="json")
    return plain


def from_json(kind: type[S], values: Mapping[str, Any]) -> S:
    """What `to_json` gave; a value that a later version added has its default.

    Raises CorruptObjectError naming a value that cannot be.
    """
    try:
        return TypeAdapter(kind).validate_python(dict(values))
    except ValidationError as error:
        path, problem = _first(error)
        raise CorruptObjectError(f"recorded settings: {path}: {problem}", culprit=path) from None


def _read(value: Any, instead_of: Any) -> Any:
    if isinstance(value, str) and isinstance(instead_of, tuple):
        return [part.strip() for part in value.split(",")]
    return value


def _first(error: ValidationError) -> tuple[str, str]:
    problem = error.errors()[0]
    path = ".".join(str(part) for part in problem["loc"] if not isinstance(part, int))
    return path, f"{problem['msg'].lower()}, not {problem['input']!r}"


def _documentation(kind: type[Any]) -> dict[str, str]:
    """The text below each field."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(definition, ast.ClassDef)  # noqa: S101 - what the source of a class is
    told = {}
    for line, below in pairwise(definition.body):
        match line, below:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                told[name] = " ".join(text.split())
    return told
