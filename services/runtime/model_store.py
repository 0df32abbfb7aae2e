"""The model store: trained weights under the id of the run that made them.

    models/<family>/<id>/<step>/{model.safetensors,config.json,card.md}
    models/<family>/<id>/<step>/{figures.json,*.png}        once it was judged
    models/<family>/<id>/{best,last}.json                   {"step": n}

A version exists once its config.json does, which is written after the weights. What describes it,
card, figures and pictures, may be replaced at any time; weights and config never are.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
import structlog

from services.errors import (
    CorruptObjectError,
    DemiurgeError,
    InvalidInputError,
    NotFoundError,
)
from services.runtime.object_store.port import ObjectStore

FAMILIES = ("melgan", "unagan", "predictor")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
PICTURE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}\.png")
_JSON_OPTIONS = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS


@dataclass(frozen=True)
class ModelVersion:
    """One step of one model. `config` is its config.json: settings and statistics."""

    family: str
    id: str
    step: int
    config: dict[str, Any]
    weights_key: str
    weights_sha256: str
    size_bytes: int
    figures: dict[str, float] = field(default_factory=dict)
    """What `describe` recorded last, by name; empty for one that was never judged."""

    @property
    def version_id(self) -> str:
        """Names these weights for good, as "k3x9q1ab@4000"."""
        return f"{self.id}@{self.step}"


class ModelStore:
    """Models in an object store. Blocking, and as safe for threads as the store is."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def save(
        self,
        family: str,
        id: str,  # noqa: A002 - what it is called everywhere
        step: int,
        *,
        weights: bytes,
        config: dict[str, Any],
        card: str,
        best: bool,
    ) -> ModelVersion:
        """Stores one step (safetensors) and points last.json, and best.json if `best`, at it.

        The first step saved is the best until another is. A version that exists keeps its card,
        which may tell how it was judged: `describe` replaces it. Raises ConflictError if other
        weights or another config have this step.
        """
        folder = f"{_folder(family, id)}/{step}"
        config_key, weights_key = f"{folder}/config.json", f"{folder}/model.safetensors"
        if self._store.exists(config_key):
            stored = self._store.put_new(weights_key, weights)
        else:
            # Left by a save that was cut short: not a version yet, so it may be replaced.
            stored = self._store.put(weights_key, weights)
            self._store.put(f"{folder}/card.md", card.encode())
        full = config | {
            "weights_sha256": stored.sha256,
            "weights_size_bytes": stored.size_bytes,
        }
        self._store.put_new(config_key, orjson.dumps(full, option=_JSON_OPTIONS))
        self._point(family, id, "last", step)
        if best or not self._store.exists(f"{_folder(family, id)}/best.json"):
            self._point(family, id, "best", step)
        return self._version(family, id, step)

    def describe(
        self,
        version: ModelVersion,
        *,
        figures: Mapping[str, float],
        card: str,
        pictures: Mapping[str, bytes],
    ) -> ModelVersion:
        """Records what was found out about a version; it replaces what was recorded before.

        `pictures` are PNG files by name, as "spectrogram.png". Returns the version with `figures`,
        which are written last: cut short, the former ones stay. Raises InvalidInputError, before
        anything is written, for a figure that is not finite or a picture of another name.
        """
        for name, value in figures.items():
            if not math.isfinite(value):
                raise InvalidInputError(
                    f"{version.version_id}: {name} is {value}, which is no figure", culprit=name
                )
        for name in pictures:
            if not PICTURE_NAME.fullmatch(name):
                raise InvalidInputError(f"{name!r} cannot be a picture's name", culprit=name)
        folder = f"{_folder(version.family, version.id)}/{version.step}"
        for name, picture in pictures.items():
            self._store.put(f"{folder}/{name}", picture)
        self._store.put(f"{folder}/card.md", card.encode())
        told = {name: float(value) for name, value in figures.items()}
        self._store.put(f"{folder}/figures.json", orjson.dumps(told, option=_JSON_OPTIONS))
        return replace(version, figures=told)

    def read_card(self, version: ModelVersion) -> str:
        """The card of a version, Markdown; "" if it has none."""
        key = f"{_folder(version.family, version.id)}/{version.step}/card.md"
        try:
            return self._store.read(key).decode()
        except NotFoundError:
            return ""

    def pictures(self, version: ModelVersion) -> dict[str, bytes]:
        """The PNG files of a version by name; none if it was never judged."""
        folder = f"{_folder(version.family, version.id)}/{version.step}/"
        names = (key.removeprefix(folder) for key in self._store.keys(folder))
        return {
            name: self._store.read(folder + name) for name in names if PICTURE_NAME.fullmatch(name)
        }

    def find(self, family: str, model_id: str) -> ModelVersion:
        """The version that "id" (its best step) or "id@step" names.

        Raises NotFoundError, naming the id and those there are, and CorruptObjectError for files
        that do not hold what they should.
        """
        id_, _, step = model_id.partition("@")
        if step and not step.isdecimal():
            raise InvalidInputError(f"{model_id!r}: the step is not a number", culprit=model_id)
        folder = _folder(family, id_)
        try:
            return self._version(
                family, id_, int(step) if step else self._step(f"{folder}/best.json")
            )
        except NotFoundError:
            there = ", ".join(self._ids(family)) or "none"
            raise NotFoundError(
                f"no {family} model {model_id!r}; there are: {there}", culprit=model_id
            ) from None

    def list(self, family: str) -> Iterator[ModelVersion]:
        """The best step of each model, by id; damaged ones are logged and left out."""
        for id_ in self._ids(family):
            try:
                yield self.find(family, id_)
            except DemiurgeError as error:
                structlog.get_logger().warning("model left out", model=id_, reason=error.message)

    def read_weights(self, version: ModelVersion) -> bytes:
        """The weights, safetensors; CorruptObjectError if they are not those that were saved."""
        return self._store.read(version.weights_key, sha256=version.weights_sha256)

    def _version(self, family: str, id_: str, step: int) -> ModelVersion:
        folder = f"{_folder(family, id_)}/{step}"
        config = self._json(f"{folder}/config.json")
        try:
            sha256, size = str(config["weights_sha256"]), int(config["weights_size_bytes"])
        except (KeyError, TypeError, ValueError):
            raise _corrupt(f"{folder}/config.json", "names no weights") from None
        return ModelVersion(
            family,
            id_,
            step,
            config,
            f"{folder}/model.safetensors",
            sha256,
            size,
            self._figures(f"{folder}/figures.json"),
        )

    def _figures(self, key: str) -> dict[str, float]:
        try:
            told = self._json(key)
        except NotFoundError:
            return {}
        except CorruptObjectError as error:
            # The model is whole without them, and `demiurge evaluate` makes them again.
            structlog.get_logger().warning("figures left out", reason=error.message)
            return {}
        return {
            name: float(value) for name, value in told.items() if isinstance(value, int | float)
        }

    def _step(self, key: str) -> int:
        step = self._json(key).get("step")
        if not isinstance(step, int):
            raise _corrupt(key, "names no step")
        return step

    def _json(self, key: str) -> dict[str, Any]:
        try:
            content = orjson.loads(self._store.read(key))
        except orjson.JSONDecodeError:
            raise _corrupt(key, "is not JSON") from None
        if not isinstance(content, dict):
            raise _corrupt(key, "is not a JSON object")
        return content

    def _point(self, family: str, id_: str, name: str, step: int) -> None:
        self._store.put(f"{_folder(family, id_)}/{name}.json", orjson.dumps({"step": step}))

    def _ids(self, family: str) -> Sequence[str]:
        _known(family)
        keys = [key.split("/") for key in self._store.keys(f"models/{family}/")]
        return sorted(key[2] for key in keys if len(key) == 4 and key[3] == "best.json")


def _known(family: str) -> None:
    if family not in FAMILIES:
        raise InvalidInputError(
            f"{family!r} is no model family; there are: {', '.join(FAMILIES)}", culprit=family
        )


def _folder(family: str, id_: str) -> str:
    _known(family)
    if not _ID.fullmatch(id_):
        raise InvalidInputError(
            f"{id_!r} cannot be a model's id: letters, digits, '.', '_' and '-' only", culprit=id_
        )
    return f"models/{family}/{id_}"


def _corrupt(key: str, what: str) -> CorruptObjectError:
    return CorruptObjectError(f"{key} {what}", culprit=key)
