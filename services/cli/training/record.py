"""The record of a training: what it is, so that it can go on, and how it is found again.

checkpoints/<family>/<id>/training.json        the record
trained/<family>/<hash of the order>.json      {"id": "…", "step": the best one, at its end}
"""

import hashlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson
from pydantic import TypeAdapter, ValidationError

from services.cli.corpus import Corpus
from services.cli.progress import Reporter
from services.errors import (
    ConflictError,
    CorruptObjectError,
    NotFoundError,
    UnreadableAudioError,
)
from services.runtime.object_store.port import ObjectStore

# Raised when the same recordings and settings should make other weights.
ALGORITHM = 2


@dataclass(frozen=True)
class Record:
    """One training."""

    family: str
    id: str
    """The model's id."""
    preset: str
    overrides: dict[str, Any]
    """What was given beside the preset, for people to read."""
    settings: dict[str, Any]
    """All settings as they were when it began: presets may change."""
    seed: int
    steps: int | None
    """How many in all; None means that only time ends it, or that its trainer knows."""
    every: int | None
    """Steps from one validation to the next, if that was given."""
    corpus: str
    """What folder or database of recordings is called."""
    folder: str
    """Where the folder was; "" for a database."""
    files: dict[str, str] = field(repr=False)
    """SHA-256 of each recording by its name."""
    finished: int = 0
    """The step at which it ended, the last one or where patience was over; 0 before its end."""

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to train."""
        return self.finished > 0

    @property
    def corpus_sha256(self) -> str:
        """Hexadecimal SHA-256 of all names and contents of the recordings."""
        lines = (f"{name}\0{sha256}\n" for name, sha256 in sorted(self.files.items()))
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    @property
    def key(self) -> str:
        """Of all that decides the weights: where another order of the same finds the training."""
        told = [ALGORITHM, self.settings, self.seed, self.steps, self.every, self.corpus_sha256]
        content = orjson.dumps(told, option=orjson.OPT_SORT_KEYS)
        return f"trained/{self.family}/{hashlib.sha256(content).hexdigest()}.json"

    def refuse_other(self, now: Mapping[str, str]) -> None:
        """Raises ConflictError naming the recordings that are not as they were at the beginning.

        `now` is what `files_of` gives.
        """
        changed = [name for name in now if name in self.files and now[name] != self.files[name]]
        told = (
            ("changed", changed),
            ("missing", sorted(self.files.keys() - now)),
            ("new", sorted(now.keys() - self.files)),
        )
        problems = [
            f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} {what}"
            for what, names in told
            if names
        ]
        if problems:
            raise ConflictError(
                f"{self.family} {self.id} began with other recordings: {'; '.join(problems)}. "
                "Put them back, or train anew without --resume",
                culprit=self.corpus,
            )


def files_of(corpus: Corpus, reporter: Reporter) -> dict[str, str]:
    """SHA-256 of each recording that can be read, by its name, in the order of the corpus.

    Files are read in parallel, and `reporter` hears how many. Who decodes them names what cannot
    be read.
    """
    sums: dict[str, str] = {}
    recordings = {recording.name: recording for recording in corpus.recordings}
    threads = ThreadPoolExecutor(os.cpu_count(), "hash")
    try:
        futures = {
            threads.submit(getattr, recording, "sha256"): name
            for name, recording in recordings.items()
        }
        for done, future in enumerate(as_completed(futures), 1):
            with suppress(UnreadableAudioError):
                sums[futures[future]] = future.result()
            reporter.update("reading recordings", done, len(futures))
    finally:
        threads.shutdown(cancel_futures=True)
    return {name: sums[name] for name in recordings if name in sums}


class Earlier(NamedTuple):
    """What the same order began before."""

    record: Record
    """As it is now: it may have been prolonged since."""
    best: int
    """The best step, if the order was carried out; 0 before."""


class Records:
    """The records in an object store."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def begin(self, record: Record) -> None:
        """Stores a new record, and before it what the same order finds it by.

        Killed between them, it leaves no record that nobody asks for.
        """
        self._store.put(record.key, orjson.dumps({"id": record.id}))
        self.write(record)

    def write(self, record: Record) -> None:
        """Stores a record in the place of what it said before."""
        content = orjson.dumps(record, option=orjson.OPT_INDENT_2)
        self._store.put(_key(record.family, record.id), content)

    def read(self, family: str, model_id: str) -> Record:
        """The record of that id.

        Raises NotFoundError, naming those there are, and CorruptObjectError.
        """
        key = _key(family, model_id)
        try:
            return TypeAdapter(Record).validate_json(self._store.read(key))
        except NotFoundError:
            there = ", ".join(self._ids(family)) or "none"
            raise NotFoundError(
                f"no training of a {family} {model_id!r} can go on here; there are: {there}",
                culprit=model_id,
            ) from None
        except ValidationError:
            raise CorruptObjectError(f"{key} is no record of a training", culprit=key) from None

    def finish(self, record: Record, best: int) -> None:
        """Stores that a training is at its end, and its best step for who gives its order again.

        A training that was prolonged is no order's: it may have another best step than one that
        was as long from the beginning. So what an order has found once stays.
        """
        self.write(record)
        earlier = self._ordered(record)
        if earlier == (record.id, 0):
            self._store.put(record.key, orjson.dumps({"id": record.id, "step": best}))

    def like(self, record: Record) -> "Earlier | None":
        """The training that the same order began; None if there is none that can be read."""
        earlier = self._ordered(record)
        if not earlier:
            return None
        try:
            return Earlier(self.read(record.family, earlier[0]), earlier[1])
        except (NotFoundError, CorruptObjectError):
            return None

    def _ordered(self, record: Record) -> tuple[str, int] | None:
        """Id and best step of what the same order began; step 0 before its end."""
        try:
            told: Mapping[str, Any] = orjson.loads(self._store.read(record.key))
            return str(told["id"]), int(told.get("step", 0))
        except (NotFoundError, CorruptObjectError, orjson.JSONDecodeError, KeyError):
            return None

    def _ids(self, family: str) -> list[str]:
        keys = [key.split("/") for key in self._store.keys(f"checkpoints/{family}/")]
        return [key[2] for key in keys if len(key) == 4 and key[3] == "training.json"]


def _key(family: str, model_id: str) -> str:
    return f"checkpoints/{family}/{model_id}/training.json"
