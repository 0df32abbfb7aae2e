"""Plug-ins: predictors of other installed packages, found by their entry points.

`services.predictor.port` says how one is written.
https://packaging.python.org/en/latest/specifications/entry-points/
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

from services.errors import ConfigurationError, DemiurgeError
from services.predictor.port import Predictor

GROUP = "demiurge.predictors"
ALL, NONE = "all", "none"
# As ids of trained models, which "@" divides from their step.
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True)
class Plugin:
    """One predictor of another package, which is imported when it is first asked for or listed."""

    id: str
    """The name of its entry point."""
    entries: tuple[EntryPoint, ...]
    """The entry points of that name; more than one serve nothing."""

    @property
    def package(self) -> str:
        """What brings it, as "demiurge-markov 1.2.0"."""
        return " and ".join(f"{name} {version}" for name, version in map(_origin, self.entries))

    def predictor_class(self) -> type[Predictor]:
        """The class that it names; ConfigurationError, naming the package, if there is none."""
        with self.blamed(wholly=True):
            if not _ID.fullmatch(self.id):
                raise ValueError("its name holds more than letters, digits, '.', '_' and '-'")
            if len(self.entries) > 1:
                raise ValueError("its name is taken twice: uninstall one of them")
            named = self.entries[0].load()
            if not (isinstance(named, type) and issubclass(named, Predictor)):
                raise TypeError(f"{self.entries[0].value} is no subclass of {Predictor.__name__}")
            return named

    def construct(self) -> Predictor:
        """A predictor of that class; ConfigurationError, naming the package, if it fails."""
        kind = self.predictor_class()
        with self.blamed(wholly=True):
            return kind()

    def identity(self, predictor: Predictor) -> str:
        """Hexadecimal SHA-256 of what its answers depend on: package, entry point and version."""
        name, version = _origin(self.entries[0])
        parts = (name, version, self.entries[0].value, predictor.version)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def version_id(self, predictor: Predictor) -> str:
        """Names these answers for good, as "markov@1.2.0-3f9a2c1b"."""
        _, version = _origin(self.entries[0])
        return f"{self.id}@{version}-{self.identity(predictor)[:8]}"

    @contextmanager
    def blamed(self, *, wholly: bool = False) -> Iterator[None]:
        """Errors that nobody foresaw inside become ConfigurationError that names the package.

        So do, if it is blamed `wholly`, those of services.errors.
        """
        try:
            yield
        # Not even a plug-in that ends the process ends the service.
        except (Exception, SystemExit) as error:
            told = isinstance(error, ConfigurationError) and error.culprit == self.package
            foreseen = isinstance(error, DemiurgeError) and type(error) is not DemiurgeError
            if told or (foreseen and not wholly):
                raise
            raise ConfigurationError(
                f"predictor {self.id!r} of {self.package} cannot be used: "
                f"{type(error).__name__}: {error}; mend or uninstall that package, or leave it out "
                "by DEMIURGE_PREDICTOR_PLUGINS",
                culprit=self.package,
            ) from error


def installed_plugins(chosen: str = ALL) -> Mapping[str, Plugin]:
    """The plug-ins that are `chosen` (all, none, or names with commas between), by id.

    Nothing is imported. Raises ConfigurationError for a name that is not installed.
    """
    if chosen == NONE:
        return {}
    found: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(group=GROUP):
        found.setdefault(entry.name, []).append(entry)
    plugins = {name: Plugin(name, tuple(found[name])) for name in sorted(found)}
    if chosen == ALL:
        return plugins
    names = chosen.split(",")
    for name in names:
        if name not in plugins:
            raise ConfigurationError(
                f"DEMIURGE_PREDICTOR_PLUGINS: no package brings a predictor {name!r}; there are: "
                f"{', '.join(plugins) or 'none'}",
                culprit="DEMIURGE_PREDICTOR_PLUGINS",
            )
    return {name: plugins[name] for name in sorted(set(names))}


def _origin(entry: EntryPoint) -> tuple[str, str]:
    """Name and version of the package that an entry point is of."""
    return (entry.dist.name, entry.dist.version) if entry.dist else ("an unnamed package", "0")
