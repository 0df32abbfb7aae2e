"""Every object of a store against its hash, and against the records and models that need it."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import orjson

from services.cli.finding import Finding
from services.cli.progress import Reporter
from services.errors import ConflictError, CorruptObjectError, NotFoundError
from services.runtime.object_store.port import ObjectStore, StoredObject
from services.runtime.temporary import temporary_room

ASIDE = "corrupt/"
COLLECTIONS = "collections/"
MEBIBYTE = 1024**2
_NAMED = 3

# Made by runs, which are done again only if they have not ended.
_MADE_BY_RUNS = ("descriptors/", "audio/generated-")

# What brings an object back, by the beginning of its key.
_ADVICE = {
    "audio/": "upload it again under the same name; if a run made it, the same run makes it again",
    "descriptors/": "the same `demiurge run`, or `demiurge index`, makes it again",
    "models/": "import or train the model again: `demiurge import`, `demiurge train`",
    "checkpoints/": "training cannot be resumed from it; `demiurge train` begins anew",
    "renders/": "the same `demiurge run` makes it again",
    "runs/": "the same `demiurge run` writes it again",
    "markers/": "what it tells is made again when it is needed",
    COLLECTIONS: "see its collection",
    "aliases/": "--mend writes it again if the index has the alias, `demiurge index` if not",
}


class StoreCheck:
    """Reads each object once, in blocks; keeps what the records refer to, by key.

    With `mend`, damaged objects are moved below corrupt/, so that nobody meets them and what can
    be made again is; but records of collections are copied there and stay. A collection that lost
    one would look as if it had been smaller.
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
        """Each damaged object, and how many are whole."""
        whole = size = aside = 0
        total = sum(1 for _ in self._store.keys(""))
        for number, key in enumerate(self._store.keys(""), start=1):
            self._progress.update("reading objects", number, max(number, total))
            if key.startswith(ASIDE):
                aside += 1
                continue
            try:
                found = self._checked(key)
            except NotFoundError:
                continue  # deleted meanwhile
            except CorruptObjectError:
                self.damaged.add(key)
                yield self._damaged(key, f"{key}: its bytes are not what was stored")
            else:
                whole += 1
                size += found.size_bytes
        yield Finding("objects", f"{whole} fit their hashes, {size / MEBIBYTE:.0f} MiB")
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
                there = self._store.stat(key).sha256
            except NotFoundError:
                wrong += 1
                self._missing.add(key)
                yield Finding("reference", f"{key}: not there, {needed}", self._advice(key))
                continue
            if sha256 in ("", there):
                fitting += 1
                continue
            wrong += 1
            what = f"{key}: another content than that {needed}"
            if (key, there) in self._needs:
                # Somebody needs this one.
                yield Finding("reference", what, "what needs it must be made anew", "differs")
            else:
                self.damaged.add(key)
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
            if key.endswith(".json") and key not in self.damaged:
                with suppress(NotFoundError):
                    content = orjson.loads(self._store.read(key))
                    if not gone.isdisjoint(needed for needed, _, _ in _references(key, content)):
                        needing.add(key.split("/")[1])
        for run_id in sorted(needing):
            end = f"runs/{run_id}/run.json"
            if self._store.exists(end):
                self._store.delete(end)
                found = f"{run_id}: open again, for something that it made is lost"
                yield Finding("run", found, "the same `demiurge run` completes it", "opened")

    def _checked(self, key: str) -> StoredObject:
        """What is known of an intact object; CorruptObjectError if it is not."""
        found = self._store.verify(key)
        if not key.endswith(".json") or key.startswith("descriptors/"):
            return found
        try:
            content = orjson.loads(self._store.read(key))
        except orjson.JSONDecodeError as error:
            raise CorruptObjectError(f"{key}: is not JSON", culprit=key) from error
        for needed, sha256, needing in _references(key, content):
            names = self._needs.setdefault((needed, sha256), [])
            if needing not in names and len(names) <= _NAMED:
                names.append(needing)
        return found

    def _damaged(self, key: str, what: str) -> Finding:
        if self._mend:
            what = f"{what}; now {self._set_aside(key)}"
        return Finding("object", what, self._advice(key), "damaged")

    def _advice(self, key: str) -> str:
        known = (advice for prefix, advice in _ADVICE.items() if key.startswith(prefix))
        advice = next(known, "put it there again, as it was, if anything needs it")
        if self._mend or key.startswith(COLLECTIONS):
            return advice
        return f"`demiurge doctor --deep --mend`; then {advice}"

    def _set_aside(self, key: str) -> str:
        """Copies an object, as it is, to a free name below corrupt/, then removes it."""
        with (
            temporary_room(key),
            tempfile.NamedTemporaryFile(prefix="demiurge-corrupt-") as copy,
            self._store.open(key) as damaged,
        ):
            shutil.copyfileobj(damaged, copy, MEBIBYTE)
            copy.flush()
            for number in count():
                aside = f"{ASIDE}{key}{f'.{number}' if number else ''}"
                try:
                    self._store.put_new(aside, Path(copy.name))
                    break
                except ConflictError:
                    continue  # what was found damaged before
        if not key.startswith(COLLECTIONS):
            self._store.delete(key)
        return aside


def _references(key: str, content: Any) -> Iterator[tuple[str, str, str]]:
    """Key, SHA-256 ("" for any) of what the JSON object under `key` refers to, and who needs it."""
    kind, _, rest = key.partition("/")
    if kind == "models" and isinstance(content, dict):
        folder, _, name = key.rpartition("/")
        model = folder.removeprefix("models/")
        if name == "config.json" and "weights_sha256" in content:
            yield f"{folder}/model.safetensors", str(content["weights_sha256"]), f"model {model}"
        elif name in {"best.json", "last.json"} and "step" in content:
            yield f"{folder}/{content['step']}/config.json", "", f"model {model}"
    elif kind in {"runs", "collections"} and not key.endswith("/live.json"):
        needing = f"{kind[:-1]} {rest.partition('/')[0]}"
        yield from ((name, sha256, needing) for name, sha256 in _object_refs(content))


def _object_refs(content: Any) -> Iterator[tuple[str, str]]:
    """Every ObjectRef in a message's JSON, however deep."""
    if isinstance(content, dict):
        if isinstance(content.get("key"), str) and isinstance(content.get("sha256"), str):
            yield content["key"], content["sha256"]
        content = list(content.values())
    if isinstance(content, list):
        for part in content:
            yield from _object_refs(part)
