"""Every object of a store against its hash, and against the records and models that need it."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from itertools import count

from services.cli.finding import Finding
from services.cli.needed import Need, is_record, needs
from services.cli.progress import Reporter
from services.errors import ConflictError, CorruptObjectError, NotFoundError
from services.runtime.object_store.port import ObjectStore
from services.temporary import temporary_room

ASIDE = "corrupt/"
COLLECTIONS = "collections/"
MEBIBYTE = 1024**2
_NAMED = 3

# Made by runs, which are done again only if they have not ended.
_MADE_BY_RUNS = ("descriptors/", "audio/generated-")

# Where nobody lays anything: another content than what is needed can only be damage.
_OURS = ("descriptors/", "runs/")

# What brings an object back, by the beginning of its key.
_ADVICE = {
    "audio/": "upload it again under the same name; if a run made it, the same run makes it again",
    "descriptors/": "the same `demiurge run`, or `demiurge index`, makes it again",
    "models/": "import or train the model again: `demiurge import`, `demiurge train`",
    "checkpoints/": "the same `demiurge train` goes on from the one before, or begins anew",
    "trained/": "the same `demiurge train` trains again",
    "renders/": "the same `demiurge run` makes it again",
    "runs/": "the same `demiurge run` writes it again",
    "markers/": "what it tells is made again when it is needed",
    COLLECTIONS: "see its collection",
    "aliases/": "--mend writes it again if the index has the alias, `demiurge index` if not",
}

# Beside a model's weights and config.
_BESIDE_MODELS = {
    "log.jsonl": "only `demiurge runs plot` needs it; a training that goes on begins it anew",
    "figures.json": "`demiurge evaluate` judges the model again",
    "spectrogram.png": "`demiurge evaluate` draws it again",
}


class StoreCheck:
    """Reads each object, in blocks, and each record once more; keeps what the records refer to.

    An object is damaged if it does not fit the hash that was recorded with it. With `mend` it is
    moved below corrupt/, so that nobody meets it and what can be made again is; but records of
    collections are copied there and stay: a collection that lost one would look as if it had been
    smaller. One that differs from what a run needs is told and left: somebody may have laid it in.
    """

    def __init__(self, store: ObjectStore, progress: Reporter, *, mend: bool) -> None:
        self._store = store
        self._progress = progress
        self._mend = mend
        self._needs: dict[tuple[str, str], list[str]] = {}
        self.damaged: set[str] = set()
        """Keys whose bytes are not what was put."""
        self._missing: set[str] = set()

    def objects(self) -> Iterator[Finding]:
        """Each object that is not what was stored, and how many are."""
        whole = size = unknown = aside = 0
        total = sum(1 for _ in self._store.keys(""))
        for number, key in enumerate(self._store.keys(""), start=1):
            self._progress.update("reading objects", number, max(number, total))
            if key.startswith(ASIDE):
                aside += 1
                continue
            try:
                found = self._store.verify(key)
            except NotFoundError:
                continue  # deleted meanwhile
            except CorruptObjectError:
                yield self._damaged(key, f"{key}: its bytes are not what was stored")
                continue
            if is_record(key):
                wrong = self._followed(key, recorded=found.recorded)
                if wrong:
                    yield wrong
                    continue
            unknown += not found.recorded
            whole += found.recorded
            size += found.size_bytes * found.recorded
        fitting = f"{whole} fit their hashes, {size / MEBIBYTE:.0f} MiB"
        if unknown:
            said = f"{fitting}; {unknown} have none recorded and cannot be checked"
            yield Finding("objects", said, mark="unknown")
        else:
            yield Finding("objects", fitting)
        if aside:
            yield Finding("set aside", f"{aside} in {ASIDE}: delete them if nothing is missed")

    def references(self) -> Iterator[Finding]:
        """Each object that a run, a collection or a model needs, and that is not there."""
        fitting = wrong = 0
        for number, ((key, sha256), needing) in enumerate(self._needs.items(), start=1):
            self._progress.update("comparing references", number, len(self._needs))
            if key in self.damaged:
                continue
            needed = f"needed by {', '.join(needing[:_NAMED])}{' …' * (len(needing) > _NAMED)}"
            try:
                there = self._store.stat(key)
            except NotFoundError:
                wrong += 1
                self._missing.add(key)
                yield Finding("reference", f"{key}: not there, {needed}", self._advice(key))
                continue
            if sha256 in ("", there.sha256):
                fitting += 1
                continue
            wrong += 1
            what = f"{key}: another content than that {needed}"
            if there.recorded or not key.startswith(_OURS) or (key, there.sha256) in self._needs:
                yield Finding("reference", what, _replaced(key), "differs")
            else:
                yield self._damaged(key, what)
        if not wrong:
            yield Finding("references", f"{fitting} stand")

    def runs(self) -> Iterator[Finding]:
        """Each run that ended and has lost something which it can make again.

        With `mend` its end is forgotten: for a run that ended, the same request finds its piece
        and makes nothing.
        """
        gone = {key for key in self.damaged | self._missing if key.startswith(_MADE_BY_RUNS)}
        if not gone or not self._mend:
            return
        needing = set()
        for key in self._store.keys("runs/"):
            # What is written again and again may be gone by now.
            if is_record(key) and key not in self.damaged:
                with suppress(NotFoundError, CorruptObjectError):
                    if not gone.isdisjoint(need.key for need in self._needs_of(key)):
                        needing.add(key.split("/")[1])
        for run_id in sorted(needing):
            end = f"runs/{run_id}/run.json"
            if self._store.exists(end):
                self._store.delete(end)
                found = f"{run_id}: open again, for something that it made is lost"
                yield Finding("run", found, "the same `demiurge run` completes it", "opened")

    def _followed(self, key: str, *, recorded: bool) -> Finding | None:
        """Keeps what a whole record refers to; what is wrong if it cannot be read as one."""
        try:
            for need in self._needs_of(key):
                names = self._needs.setdefault((need.key, need.sha256), [])
                if need.by not in names and len(names) <= _NAMED:
                    names.append(need.by)
        except NotFoundError:
            return None  # deleted meanwhile
        except CorruptObjectError as error:
            what = f"{key}: cannot be read as the record that it should be"
            if recorded:
                return self._damaged(key, what)
            said = f"{what}, and nothing tells who wrote it ({error.message})"
            advice = f"delete it, unless it is yours; then {_back(key)}"
            return Finding("object", said, advice, "differs")
        return None

    def _needs_of(self, key: str) -> Iterator[Need]:
        return needs(key, self._store.read(key))

    def _damaged(self, key: str, what: str) -> Finding:
        self.damaged.add(key)
        if self._mend:
            what = f"{what}; now {self._set_aside(key)}"
        return Finding("object", what, self._advice(key), "damaged")

    def _advice(self, key: str) -> str:
        if self._mend or key.startswith(COLLECTIONS):
            return _back(key)
        return f"`demiurge doctor --deep --mend`; then {_back(key)}"

    def _set_aside(self, key: str) -> str:
        """Copies an object, as it is, to a free name below corrupt/, then removes it."""
        with (
            temporary_room(key),
            tempfile.TemporaryFile() as copy,
            self._store.open(key) as damaged,
        ):
            shutil.copyfileobj(damaged, copy, MEBIBYTE)
            copy.flush()
            for number in count():
                aside = f"{ASIDE}{key}{f'.{number}' if number else ''}"
                try:
                    self._store.put_new(aside, copy)
                    break
                except ConflictError:
                    continue  # what was found damaged before
        if not key.startswith(COLLECTIONS):
            self._store.delete(key)
        return aside


def _back(key: str) -> str:
    """What brings an object back."""
    name = key.rpartition("/")[2]
    if key.startswith("models/") and name in _BESIDE_MODELS:
        return _BESIDE_MODELS[name]
    known = (advice for prefix, advice in _ADVICE.items() if key.startswith(prefix))
    return next(known, "put it there again, as it was, if anything needs it")


def _replaced(key: str) -> str:
    """What to do about another content under a name that something needs."""
    return (
        "left as it is. If it is meant, run or index anew with it, and delete what needed the "
        f"former; if not, delete it, then {_back(key)}"
    )
