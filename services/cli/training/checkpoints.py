"""Checkpoints: all that a training needs to go on as if it had never stopped.

    checkpoints/<family>/<id>/<step>.pt       torch.save
    checkpoints/<family>/<id>/newest.json     [{"step": n, "sha256": "…"}, …], the newest first

The pointer is written after what it points at, and only then is what it no longer names deleted.
"""

import io
import pickle
from collections.abc import Callable, Mapping
from typing import Any

import orjson
import torch

from services.errors import CorruptObjectError, NotFoundError
from services.runtime.object_store.port import ObjectStore

KEPT = 2
"""The newest is used; the one before is there for the day on which it is damaged."""


class Checkpoints:
    """Those of one training."""

    def __init__(self, store: ObjectStore, family: str, model_id: str) -> None:
        self._store = store
        self._folder = f"checkpoints/{family}/{model_id}"
        self._pointer = f"{self._folder}/newest.json"

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Stores a state: tensors, numbers, texts, None, and lists, tuples and dicts of those."""
        content = io.BytesIO()
        torch.save(dict(state), content)
        stored = self._store.put(self._key(step), content)
        before = [each for each in self._listed() if each["step"] < step]
        kept = [{"step": step, "sha256": stored.sha256}, *before][:KEPT]
        self._store.put(self._pointer, orjson.dumps(kept))
        names = {self._key(each["step"]) for each in kept}
        for key in list(self._store.keys(f"{self._folder}/")):
            if key.endswith(".pt") and key not in names:
                self._store.delete(key)

    def newest(self, say: Callable[[str], None]) -> tuple[int, dict[str, Any]] | None:
        """The last step and state that can be read, on the CPU; None if there is none.

        A damaged one is told, and the one before is used. Without any, a training begins anew.
        """
        listed = self._listed()
        for each in listed:
            try:
                return each["step"], self._load(each["step"], each["sha256"])
            except (CorruptObjectError, NotFoundError) as error:
                say(f"left out: checkpoint {error.message}")
        if listed:
            say(f"{self._folder}: no checkpoint can be read: the training begins anew")
        return None

    def _load(self, step: int, sha256: str) -> dict[str, Any]:
        key = self._key(step)
        content = self._store.read(key, sha256=sha256)
        try:
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
            raise CorruptObjectError(f"{key}: {error}", culprit=key) from error
        return dict(state)

    def _listed(self) -> list[dict[str, Any]]:
        try:
            return list(orjson.loads(self._store.read(self._pointer)))
        except NotFoundError:
            return []
        except (orjson.JSONDecodeError, CorruptObjectError):
            # What it would have said can be seen, but for the hashes.
            names = [key.rpartition("/")[2] for key in self._store.keys(f"{self._folder}/")]
            steps = [int(name.removesuffix(".pt")) for name in names if name.endswith(".pt")]
            return [{"step": step, "sha256": ""} for step in sorted(steps, reverse=True)]

    def _key(self, step: int) -> str:
        return f"{self._folder}/{step}.pt"
