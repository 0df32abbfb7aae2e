"""The journal of a training: its figures by step, kept in the object store, needing no account.

    models/<family>/<id>/log.jsonl       {"step": n, "time": "…Z", "figures": {"loss": 0.5, …}}

An object is replaced as a whole, so the journal holds few lines, and each flush writes all of them.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson
import structlog

from services.errors import CorruptObjectError, InvalidInputError, NotFoundError
from services.runtime.model_store import FAMILIES
from services.runtime.object_store.port import ObjectStore

MOST_LINES = 4096
"""Beyond this, every second line that holds no validation is dropped."""

VALIDATION = "validation/"
_NAME = "log.jsonl"


class Entry(NamedTuple):
    """What one step had to say."""

    step: int
    time: datetime
    figures: dict[str, float]


class Journal:
    """The log of one training, taken up where it was left. Not safe for threads.

    A log that is damaged is begun anew, which is logged: no training ends for the want of its past.
    """

    def __init__(self, store: ObjectStore, family: str, run_id: str) -> None:
        self._store = store
        self._key = journal_key(family, run_id)
        try:
            self._entries = read_journal(store, family, run_id)
        except NotFoundError:
            self._entries = []
        except CorruptObjectError as error:
            structlog.get_logger().warning("log begun anew", log=self._key, reason=error.message)
            self._entries = []

    @property
    def entries(self) -> Sequence[Entry]:
        """What it holds, in the order of the steps."""
        return tuple(self._entries)

    def record(self, step: int, figures: Mapping[str, float]) -> None:
        """Adds figures to a step, the last one or a later one; kept by the next `flush`.

        Numbers are read here, so that tensors on a device should be brought over before. Raises
        ValueError for a step before the last: `rewind` first.
        """
        values = {name: float(value) for name, value in figures.items()}
        now = datetime.now(UTC).replace(microsecond=0)
        last = self._entries[-1] if self._entries else None
        if last is not None and step < last.step:
            raise ValueError(f"step {step} comes after step {last.step} in {self._key}")
        if last is not None and step == last.step:
            self._entries[-1] = Entry(step, now, last.figures | values)
        else:
            self._entries.append(Entry(step, now, values))
        if len(self._entries) > MOST_LINES:
            self._thin_out()

    def rewind(self, step: int) -> None:
        """Forgets what comes after `step`, from which a training goes on; kept by `flush`."""
        self._entries = [entry for entry in self._entries if entry.step <= step]

    def flush(self) -> None:
        """Stores the log, atomically; raises what the store's `put` does."""
        lines = (
            orjson.dumps(entry._asdict(), option=orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE)
            for entry in self._entries
        )
        self._store.put(self._key, b"".join(lines))

    def _thin_out(self) -> None:
        last = len(self._entries) - 1
        self._entries = [
            entry
            for number, entry in enumerate(self._entries)
            if number % 2 == 0
            or number == last
            or any(name.startswith(VALIDATION) for name in entry.figures)
        ]


def journal_key(family: str, run_id: str) -> str:
    """Where the log of a training is kept."""
    return f"models/{family}/{run_id}/{_NAME}"


def read_journal(store: ObjectStore, family: str, run_id: str) -> list[Entry]:
    """The entries in the order of their steps; a figure that was no number comes back as NaN.

    Raises NotFoundError if that training has no log, CorruptObjectError for a damaged one.
    """
    key = journal_key(family, run_id)
    try:
        content = store.read(key)
    except NotFoundError:
        raise NotFoundError(f"no {family} {run_id!r} has a log", culprit=run_id) from None
    try:
        return [_entry(orjson.loads(line)) for line in content.splitlines()]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CorruptObjectError(
            f"{key} is no log of a training; delete it, and a training that goes on begins it anew",
            culprit=key,
        ) from None


def journals(store: ObjectStore) -> Iterator[tuple[str, str]]:
    """Family and id of each training that has a log."""
    for family in FAMILIES:
        for key in store.keys(f"models/{family}/"):
            parts = key.split("/")
            if len(parts) == 4 and parts[3] == _NAME:
                yield family, parts[2]


def find_journal(store: ObjectStore, run_id: str, family: str = "") -> str:
    """The family of the one training with this id that has a log; `family`, if given, is it.

    Raises NotFoundError, naming those there are, and InvalidInputError if several families have it.
    """
    there = list(journals(store))
    found = [known for known, name in there if name == run_id and family in {"", known}]
    if not found:
        names = ", ".join(name for known, name in there if family in {"", known}) or "none"
        raise NotFoundError(
            f"no {family or 'training'} {run_id!r} has a log; there are: {names}", culprit=run_id
        )
    if len(found) > 1:
        raise InvalidInputError(
            f"{run_id!r} is the id of several trainings: choose by --family ({', '.join(found)})",
            culprit=run_id,
        )
    return found[0]


def series(entries: Sequence[Entry]) -> dict[str, list[tuple[int, float]]]:
    """Each figure's course, (step, value) by step, by the figure's name."""
    courses: dict[str, list[tuple[int, float]]] = {}
    for entry in entries:
        for name, value in entry.figures.items():
            courses.setdefault(name, []).append((entry.step, value))
    return dict(sorted(courses.items()))


def _entry(line: Any) -> Entry:
    figures = {
        str(name): math.nan if value is None else float(value)
        for name, value in line["figures"].items()
    }
    return Entry(int(line["step"]), datetime.fromisoformat(line["time"]), figures)
