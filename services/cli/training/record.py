"""The record of a training: what it is, so that it can go on, and how it is found again.

checkpoints/<family>/<id>/training.json        the record
trained/<family>/<hash of the order>.json      {"id": "…"}
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from pydantic import TypeAdapter, ValidationError

from services.cli.corpus import Corpus
from services.errors import ConflictError, CorruptObjectError, NotFoundError
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
    """The steps after which it was at its end."""

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to train."""
        return self.finished > 0 and (self.steps is None or self.finished >= self.steps)

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

    def refuse_other(self, corpus: Corpus) -> None:
        """Raises ConflictError naming the recordings that are not as they were at the beginning."""
        now = files_of(corpus)
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


def files_of(corpus: Corpus) -> dict[str, str]:
    """SHA-256 of each recording by its name."""
    return {recording.name: recording.sha256 for recording in corpus.recordings}


class Records:
    """The records in an object store."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def begin(self, record: Record) -> None:
        """Stores a new record, and then what the same order finds it by."""
        self.write(record)
        self._store.put(record.key, orjson.dumps({"id": record.id}))

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

    def like(self, record: Record) -> Record | None:
        """The training that the same order began; None if there is none that can be read."""
        try:
            known: Mapping[str, Any] = orjson.loads(self._store.read(record.key))
            return self.read(record.family, str(known["id"]))
        except (NotFoundError, CorruptObjectError, orjson.JSONDecodeError, KeyError):
            return None

    def _ids(self, family: str) -> list[str]:
        keys = [key.split("/") for key in self._store.keys(f"checkpoints/{family}/")]
        return [key[2] for key in keys if len(key) == 4 and key[3] == "training.json"]


def _key(family: str, model_id: str) -> str:
    return f"checkpoints/{family}/{model_id}/training.json"
