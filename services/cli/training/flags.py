"""Flags of a command that are made from the settings they change, so that none can be forgotten.

`--ngf` is the value `generator.ngf` of a MelGAN's settings. Where several values have one name, or
the command itself has a flag of that name, the whole path tells them apart: `--generator-ngf`.
"""

import inspect
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from typer.core import TyperCommand

from services.cli.training.settings import Setting, settings_of

RESERVED = frozenset(
    f"--{name}"
    for name in (
        *("recorded", "audio-db-dir", "data-path", "database", "preset", "steps", "minutes"),
        *("every", "seed", "device", "resume", "resume-run-id", "show", "help"),
    )
)
"""Flags that the command has of its own."""
METAVARS = {int: "INTEGER", float: "FLOAT", str: "TEXT"}


def flag_names(settings: Collection[Setting]) -> Mapping[str, str]:
    """The flag of each setting by its path, but for those that the command has a flag for."""
    last = Counter(_last(setting) for setting in settings)
    names = {}
    for setting in settings:
        whole = _flag(setting.path.replace(".", "_"))
        short = _flag(_last(setting))
        alone = last[_last(setting)] == 1 or "." not in setting.path
        if whole not in RESERVED:
            names[setting.path] = short if alone and short not in RESERVED else whole
    return names


class SettingsCommand(TyperCommand):
    """A command with a flag for each of its settings; the given ones are in the context's `obj`.

    They are made when they are asked for: settings may stand beside what takes seconds to import.
    """

    settings_class: Callable[[str], type[Any]]
    """The dataclass of settings by the command's name."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Its own, then those of the settings."""
        return [*super().get_params(ctx)[:-1], *self._made, super().get_params(ctx)[-1]]

    def invoke(self, ctx: Any) -> Any:
        """Sets `ctx.obj` to the given settings: {path: value, texts as they were given}."""
        given = {path: ctx.params.pop(_parameter(path)) for path in self._names}
        ctx.obj = {path: value for path, value in given.items() if value is not None}
        return super().invoke(ctx)

    @cached_property
    def _settings(self) -> list[Setting]:
        return list(settings_of(type(self).settings_class(self.name or "")))

    @cached_property
    def _names(self) -> Mapping[str, str]:
        return flag_names(self._settings)

    @cached_property
    def _made(self) -> list[Any]:
        """Typer's own parameters, of a function whose signature has them."""

        def function(**values: Any) -> None: ...

        parameters = [
            inspect.Parameter(
                _parameter(setting.path),
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=_annotation(setting, self._names[setting.path]),
            )
            for setting in self._settings
            if setting.path in self._names
        ]
        function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        function.__annotations__ = {each.name: each.annotation for each in parameters}
        app = typer.Typer(add_completion=False, rich_markup_mode=None)
        app.command()(function)
        return list(typer.main.get_command(app).params)


def _annotation(setting: Setting, flag: str) -> Any:
    """What Typer makes an option of: texts, which are read when the settings are made, or switches.

    A value's type is known there, and so are the bounds that settings check for themselves.
    """
    if setting.kind is bool:
        both = f"{flag}/--no-{flag.removeprefix('--')}"
        return Annotated[bool | None, typer.Option(both, help=setting.documentation)]
    kinds = [kind for kind in get_args(setting.kind) or (setting.kind,) if kind is not NoneType]
    choice = get_origin(setting.kind) is Literal
    told = f" One of {', '.join(map(str, kinds))}." if choice else ""
    metavar = "NAME" if choice else METAVARS.get(kinds[0], "VALUE")
    if get_origin(setting.kind) is tuple:
        metavar = "N,N,…"
    return Annotated[
        str | None,
        typer.Option(flag, metavar=metavar, help=setting.documentation + told),
    ]


def _last(setting: Setting) -> str:
    return setting.path.rpartition(".")[2]


def _parameter(path: str) -> str:
    return "setting_" + path.replace(".", "__")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
