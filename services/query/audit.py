"""Whether a collection is what was indexed: every point an engine holds against the descriptors.

What was indexed is told from outside the index, so that one that lost or mixed up its points can
be found out, and built anew.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from services.audio.match_table import SourceRef
from services.errors import CorruptObjectError, DemiurgeError, NotFoundError
from services.query.index import (
    Checkpoint,
    Collection,
    CollectionSpec,
    VectorIndex,
    never_stopped,
)

MOST_FINDINGS = 20
_NAMED_IN_ERRORS = 5
_BEING_FILLED = (
    "is not published: being filled, or left by a run that was interrupted: resume the run"
)


@dataclass(frozen=True, eq=False)
class RecordedSound:
    """One sound that was indexed.

    `frames` reads them, (frame_count, features) float32 in the order of the specification, or
    raises a DemiurgeError that names the file which should hold them.
    """

    source: SourceRef
    frame_count: int
    frames: Callable[[], NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class RecordedCollection:
    """A collection as it should be; `skip_graph` is None if it was never published.

    `indexed` tells whether a sound of this key has been indexed by now.
    """

    id: str
    spec: CollectionSpec
    sounds: tuple[RecordedSound, ...]
    skip_graph: bool | None
    aliases: tuple[str, ...]
    indexed: Callable[[str], bool] = lambda _: False


@dataclass
class Audit:
    """What is wrong with a collection; `findings` name the sounds, at most 20 and what is left.

    `lost` is set if the index has no such collection; `standing` is what is wrong beside the
    points; `unreadable` names the sounds whose descriptors are not there to compare with, hence nor
    to rebuild from, and why.
    """

    expected: int = 0
    missing: int = 0
    duplicate: int = 0
    orphaned: int = 0
    changed: int = 0
    lost: bool = False
    standing: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    _lines: list[str] = field(default_factory=list)
    _unsaid: int = 0

    @property
    def to_rebuild(self) -> bool:
        """Whether points have to be put right."""
        return bool(self.lost or self.missing or self.duplicate or self.orphaned or self.changed)

    @property
    def wrong(self) -> bool:
        """Whether anything has."""
        return self.to_rebuild or bool(self.standing)

    @property
    def findings(self) -> list[str]:
        """One line each."""
        lines = [*self.standing, *self._lines]
        total = len(lines) + self._unsaid
        if total <= MOST_FINDINGS:
            return lines
        return [*lines[: MOST_FINDINGS - 1], f"and {total - MOST_FINDINGS + 1} more"]

    def say(self, line: str) -> None:
        """Keeps a finding, or counts it if there are many."""
        if len(self._lines) < MOST_FINDINGS:
            self._lines.append(line)
        else:
            self._unsaid += 1


class _Tally:
    """What was seen of one sound: a bit for each frame, and one digest for all of them.

    The digest is a sum, so that it does not depend on the order in which the engine answers.
    """

    def __init__(self, frame_count: int, hop: int) -> None:
        self._frame_count, self._hop = frame_count, hop
        self._seen = bytearray(-(-frame_count // 8))
        self.points = self.duplicate = self.beyond = self.digest = 0

    def see(self, start_sample: int, frame: bytes) -> None:
        number, rest = divmod(start_sample, self._hop)
        if rest or number >= self._frame_count:
            self.beyond += 1
        elif number in self:
            self.duplicate += 1
        else:
            self._seen[number // 8] |= 1 << number % 8
            self.points += 1
            self.digest += _digest(number, frame)

    def __contains__(self, number: int) -> bool:
        return bool(self._seen[number // 8] >> number % 8 & 1)

    def fits(self, frames: NDArray[np.float32]) -> bool:
        """Whether the frames seen hold the values that they have in `frames`."""
        rows = enumerate(_rows(frames))
        return self.digest == sum(_digest(number, row) for number, row in rows if number in self)


def audit(
    index: VectorIndex, recorded: RecordedCollection, checkpoint: Checkpoint = never_stopped
) -> Audit:
    """Compares every point with the descriptors it came from; changes nothing.

    Memory grows by a bit for each frame, besides one sound's frames and one page of points.
    """
    found = Audit(expected=sum(sound.frame_count for sound in recorded.sounds))
    _compare_standing(index, recorded, found)
    hop = recorded.spec.hop_length_samples
    tallies = {sound.source.key: _Tally(sound.frame_count, hop) for sound in recorded.sounds}
    strange: Counter[str | None] = Counter()
    try:
        for page in index.points(recorded.id):
            checkpoint()
            starts = page.start_samples.tolist()
            for key, start, frame in zip(page.keys, starts, _rows(page.frames), strict=True):
                tally = None if key is None else tallies.get(key)
                if tally is None:
                    strange[key] += 1
                else:
                    tally.see(start, frame)
    except NotFoundError:
        pass  # told by its standing; every point is missing
    except CorruptObjectError as error:
        found.say(error.message)
    for key, points in strange.items():
        # Not so where it was indexed since the records were read, or is being indexed.
        if recorded.skip_graph is not None and (key is None or not recorded.indexed(key)):
            found.orphaned += points
            found.say(f"{key or 'no known sound'}: {points} points, but it was never indexed")
    for sound in recorded.sounds:
        checkpoint()
        _compare_sound(sound, tallies[sound.source.key], found)
    if found.to_rebuild and recorded.skip_graph is None:
        found.standing.append(_BEING_FILLED)
    return found


def mend(
    index: VectorIndex,
    recorded: RecordedCollection,
    found: Audit,
    checkpoint: Checkpoint = never_stopped,
) -> None:
    """Puts right what `found` tells of; doing it twice, or again after a crash, is harmless.

    One that was never published may be filled at this moment, by another process that shares the
    index: only if it is lost it is made again. Whoever fills it puts the rest right.

    Raises, before anything is changed, NotFoundError naming the sounds if descriptors to rebuild
    from are not there, and CorruptObjectError if a published collection has no sounds.
    """
    if found.lost or (found.to_rebuild and recorded.skip_graph is not None):
        if recorded.skip_graph is not None and not recorded.sounds:
            raise CorruptObjectError(
                f"collection {recorded.id!r} was published, but no sound of it is recorded: delete "
                "it and index its sounds again",
                culprit=recorded.id,
            )
        if found.unreadable:
            named = "; ".join(found.unreadable[:_NAMED_IN_ERRORS])
            more = len(found.unreadable) - _NAMED_IN_ERRORS
            raise NotFoundError(
                f"collection {recorded.id!r} cannot be rebuilt: {named}"
                f"{f' and {more} more' if more > 0 else ''}: resume the run that needs it, or "
                "extract or index these sounds again",
                culprit=recorded.id,
            )
        # The records outlive the index's own: a rebuilding cut short is found wrong again.
        if recorded.skip_graph is not None:
            with suppress(NotFoundError):
                index.delete(recorded.id)
        index.create(recorded.id, recorded.spec)
        _add(index, recorded, checkpoint)
    if recorded.skip_graph is not None:
        for alias in recorded.aliases or ("",):
            index.publish(recorded.id, alias, skip_graph=recorded.skip_graph, checkpoint=checkpoint)


def fill_up(
    index: VectorIndex, recorded: RecordedCollection, checkpoint: Checkpoint = never_stopped
) -> None:
    """Puts back the sounds that the index lost of a collection about to be published.

    Raises CorruptObjectError if it then still holds others than were recorded, and what reading
    their descriptors raises.
    """
    points = sum(sound.frame_count for sound in recorded.sounds)
    standing = index.describe(recorded.id)
    if (standing.source_count, standing.point_count) != (len(recorded.sounds), points):
        _add(index, recorded, checkpoint)
        same_sounds(index.describe(recorded.id), len(recorded.sounds))


def same_sounds(standing: Collection, recorded: int) -> None:
    """CorruptObjectError if the index has not as many sounds of a collection as are recorded."""
    if standing.source_count != recorded:
        todo = (
            "`demiurge doctor --deep --mend` rebuilds it"
            if standing.published
            else "resume the run that needs it, or index all its sounds again, then publish it"
        )
        raise CorruptObjectError(
            f"collection {standing.id!r} holds {standing.source_count} sounds in the index, but "
            f"{recorded} are recorded in the object store: {todo}",
            culprit=standing.id,
        )


def _add(index: VectorIndex, recorded: RecordedCollection, checkpoint: Checkpoint) -> None:
    for sound in recorded.sounds:
        checkpoint()
        index.add(recorded.id, sound.source, sound.frames(), checkpoint=checkpoint)


def _compare_standing(index: VectorIndex, recorded: RecordedCollection, found: Audit) -> None:
    try:
        standing = index.describe(recorded.id)
    except NotFoundError:
        found.lost = True
        found.standing.append("the index has lost it")
        return
    if standing.spec != recorded.spec:
        found.lost = True
        found.standing.append("the index has it with another specification")
    if standing.published != (recorded.skip_graph is not None):
        found.standing.append(
            "is published in the index, but not in the object store"
            if standing.published
            else "is not published, but was"
        )
    found.standing.extend(
        f"alias {alias!r} does not point at it"
        for alias in recorded.aliases
        if alias not in standing.aliases
    )


def _compare_sound(sound: RecordedSound, tally: _Tally, found: Audit) -> None:
    key = sound.source.key
    missing = sound.frame_count - tally.points
    found.missing += missing
    found.duplicate += tally.duplicate
    found.orphaned += tally.beyond
    for points, what in (
        (missing, "missing"),
        (tally.duplicate, "there more than once"),
        (tally.beyond, "where it has no frame"),
    ):
        if points:
            found.say(f"{key}: {points} points {what}, of {sound.frame_count} frames")
    try:
        frames = sound.frames()
    except DemiurgeError as error:
        found.unreadable.append(f"{key}: {error.message}")
        found.say(f"{key}: cannot be compared: {error.message}")
        return
    if not tally.fits(frames):
        found.changed += 1
        found.say(f"{key}: points hold other values than its descriptors")


def _rows(frames: NDArray[np.float32]) -> Iterator[bytes]:
    """Each frame's bytes."""
    return (row.tobytes() for row in np.ascontiguousarray(frames, "<f4"))


def _digest(number: int, frame: bytes) -> int:
    content = number.to_bytes(8, "little") + frame
    return int.from_bytes(hashlib.blake2b(content, digest_size=16).digest(), "little")
