"""What every vector index refuses, in the same words whichever engine is behind it."""

import hashlib
import re
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from services.audio.match_table import SourceRef
from services.errors import ConflictError, InvalidInputError, NotFoundError, NotReadyError
from services.query.index import CollectionSpec

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_NAMED_IN_ERRORS = 20


def checked_id(name: str) -> str:
    """Returns `name` if it can be a collection's id or alias; InvalidInputError if not."""
    if not _ID.fullmatch(name):
        raise InvalidInputError(
            f"{name!r} is no collection id: use letters, digits, '.', '_' and '-', at most 128, "
            "beginning with a letter or digit",
            culprit=name,
        )
    return name


def checked_frames(
    collection_id: str, spec: CollectionSpec, source: SourceRef, frames: NDArray[np.float32]
) -> str:
    """SHA-256 of frames that the collection can take; InvalidInputError for others."""
    features = len(spec.feature_names)
    if frames.ndim != 2 or frames.shape[1] != features or not len(frames):
        raise InvalidInputError(
            f"{source.key}: frames of shape {frames.shape} do not fit collection "
            f"{collection_id!r}, which takes one or more frames of {features} features",
            culprit=source.key,
        )
    return hashlib.sha256(np.ascontiguousarray(frames, "<f4").tobytes()).hexdigest()


def unknown(name: str, aliases: Iterable[tuple[str, str]], ids: Iterable[str]) -> NotFoundError:
    """There is no collection `name`; `aliases` are pairs of alias and id."""
    targets = dict(aliases)
    # Names that people gave come first; ids are digests, and tell little.
    names = [*sorted(targets), *sorted(ids)]
    known = ", ".join(names[:_NAMED_IN_ERRORS])
    known += " …" if len(names) > _NAMED_IN_ERRORS else ""
    hint = f"; it is an alias of {targets[name]!r}" if name in targets else ""
    return NotFoundError(
        f"no collection {name!r}{hint}; there are: {known or 'none'}", culprit=name
    )


def id_is_alias(collection_id: str, target: str) -> ConflictError:
    """A collection cannot be made under the alias of `target`."""
    return ConflictError(
        f"{collection_id!r} is an alias of collection {target!r}: choose another id",
        culprit=collection_id,
    )


def alias_is_id(alias: str) -> ConflictError:
    """An alias cannot be what a collection is called."""
    return ConflictError(
        f"alias {alias!r} is the id of a collection: choose another", culprit=alias
    )


def other_spec(collection_id: str) -> ConflictError:
    """The collection is there, made for something else."""
    return ConflictError(
        f"collection {collection_id!r} was made for another specification: "
        "choose another id, or delete it first",
        culprit=collection_id,
    )


def changed(collection_id: str, source: SourceRef, known_sha256: str) -> ConflictError:
    """The sound is there, with other content or other frames; `known_sha256` is its content's."""
    what = "descriptors" if known_sha256 == source.sha256 else "content"
    return ConflictError(
        f"{source.key} is in collection {collection_id!r} with other {what}: "
        "make another collection",
        culprit=source.key,
    )


def published(collection_id: str, source: SourceRef) -> ConflictError:
    """A published collection takes no new sounds."""
    return ConflictError(
        f"collection {collection_id!r} is published, hence complete, and does not hold "
        f"{source.key}: make another collection",
        culprit=collection_id,
    )


def empty(collection_id: str) -> NotReadyError:
    """A collection without frames is not published."""
    return NotReadyError(
        f"collection {collection_id!r} holds no frames: index descriptors first",
        culprit=collection_id,
    )


def checked_neighbors(collection_id: str, k: int, point_count: int) -> None:
    """InvalidInputError if a collection does not have k neighbours for anything."""
    if not 1 <= k <= point_count:
        raise InvalidInputError(
            f"{k} neighbours of each frame were asked for, but collection "
            f"{collection_id!r} holds {point_count} frames",
            culprit="neighbors",
        )
