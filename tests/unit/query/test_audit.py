"""What an audit finds in a collection whose points were meddled with, and how it is mended."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from qdrant_edge import EdgeShard, Point, UpdateOperation

from services.audio.match_table import SourceRef
from services.errors import CorruptObjectError, NotFoundError
from services.query.audit import MOST_FINDINGS, RecordedCollection, RecordedSound, audit, mend
from services.query.edge import EdgeIndex
from services.query.index import CollectionSpec, Metric, SearchMode

HOP = 1024
SPEC = CollectionSpec(("mfcc0", "mfcc1"), 44100, HOP, Metric.COSINE)
FRAMES = {
    "audio/birds/owl.wav": np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32),
    "audio/birds/wren.wav": np.random.default_rng(1).normal(size=(20, 2)).astype(np.float32),
}
OWL, WREN = FRAMES
QUERIES = np.random.default_rng(2).normal(size=(15, 2)).astype(np.float32)


def source(key: str) -> SourceRef:
    return SourceRef(key, "0" * 64, 1, "audio/wav")


def sound(key: str, frames: NDArray[np.float32]) -> RecordedSound:
    return RecordedSound(source(key), len(frames), lambda: frames)


def gone(key: str) -> RecordedSound:
    """A sound whose descriptors are not there any more."""

    def frames() -> NDArray[np.float32]:
        raise NotFoundError("descriptors/1.json: no such object")

    return RecordedSound(source(key), len(FRAMES[key]), frames)


RECORDED = RecordedCollection(
    id="birds",
    spec=SPEC,
    sounds=tuple(sound(key, frames) for key, frames in FRAMES.items()),
    skip_graph=True,
    aliases=("current",),
)


class Meddling:
    """An index of the recorded collection, whose shard can be changed behind its back."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.index = EdgeIndex(folder)
        self.index.create("birds", SPEC)
        for key, frames in FRAMES.items():
            self.index.add("birds", source(key), frames)
        self.index.publish("birds", "current", skip_graph=True)

    def update(self, *operations: UpdateOperation) -> None:
        self.index.close()
        [path] = (self._folder / "shards").iterdir()
        shard = EdgeShard.load(str(path))
        for operation in operations:
            shard.update(operation)
        shard.flush()
        shard.close()
        self.index = EdgeIndex(self._folder)

    def ids(self, key: str) -> list[str]:
        """Ids of a sound's points, in the order of its frames."""
        found = [
            (start, name)
            for page in self.index.points("birds")
            for name, of, start in zip(page.ids, page.keys, page.start_samples, strict=True)
            if of == key
        ]
        return [name for _, name in sorted(found)]

    def answers(self) -> tuple[object, ...]:
        found = self.index.search("current", QUERIES, 5, SearchMode.EXACT)
        columns = (found.source_indices, found.start_samples, found.distances)
        return (found.sources, *(column.tolist() for column in columns))


@pytest.fixture
def meddling(tmp_path: Path) -> Meddling:
    return Meddling(tmp_path / "index")


def point(name: str, number: int, start: int, frame: NDArray[np.float32]) -> Point:
    vectors = {"frame": frame.tolist(), "search": frame.tolist()}
    return Point(name, vectors, {"source": number, "start_sample": start})


def lose(meddling: Meddling) -> None:
    meddling.update(UpdateOperation.delete_points(meddling.ids(WREN)[3:7]))


def double(meddling: Meddling) -> None:
    frame = FRAMES[OWL][2]
    doubles = [point("f" * 31 + str(last), 0, 2 * HOP, frame) for last in range(3)]
    meddling.update(UpdateOperation.upsert_points(doubles))


def orphan(meddling: Meddling) -> None:
    frame = FRAMES[OWL][0]
    # Beyond the last frame of the one, between two frames of the other.
    strays = [point("e" * 32, 0, 9 * HOP, frame), point("d" * 32, 1, HOP + 1, frame)]
    meddling.update(UpdateOperation.upsert_points(strays))


def change(meddling: Meddling) -> None:
    changed = point(meddling.ids(WREN)[4], 1, 4 * HOP, FRAMES[WREN][4] + np.float32(1e-6))
    meddling.update(UpdateOperation.upsert_points([changed]))


def swap(meddling: Meddling) -> None:
    first, second = meddling.ids(OWL)[:2]
    frames = FRAMES[OWL]
    swapped = [point(first, 0, 0, frames[1]), point(second, 0, HOP, frames[0])]
    meddling.update(UpdateOperation.upsert_points(swapped))


def lose_all(meddling: Meddling) -> None:
    meddling.index.delete("birds")


def unpublish(meddling: Meddling) -> None:
    meddling.index.delete("birds")
    meddling.index.create("birds", SPEC)
    for key, frames in FRAMES.items():
        meddling.index.add("birds", source(key), frames)


def test_a_collection_as_it_was_indexed_has_nothing_wrong(meddling: Meddling) -> None:
    found = audit(meddling.index, RECORDED)

    assert (found.expected, found.wrong, found.findings) == (29, False, [])


@pytest.mark.parametrize(
    ("meddle", "counts", "finding"),
    [
        (lose, (4, 0, 0, 0), f"{WREN}: 4 points missing, of 20 frames"),
        (double, (0, 3, 0, 0), f"{OWL}: 3 points there more than once, of 9 frames"),
        (orphan, (0, 0, 2, 0), f"{OWL}: 1 points where it has no frame, of 9 frames"),
        (change, (0, 0, 0, 1), f"{WREN}: points hold other values than its descriptors"),
        (swap, (0, 0, 0, 1), f"{OWL}: points hold other values than its descriptors"),
        (lose_all, (29, 0, 0, 0), "the index has lost it"),
        (unpublish, (0, 0, 0, 0), "is not published, but was"),
    ],
)
def test_what_is_wrong_is_counted_named_and_mended(
    meddling: Meddling,
    meddle: Callable[[Meddling], None],
    counts: tuple[int, ...],
    finding: str,
) -> None:
    before = meddling.answers()
    meddle(meddling)

    found = audit(meddling.index, RECORDED)
    assert (found.missing, found.duplicate, found.orphaned, found.changed) == counts
    assert found.wrong
    assert finding in found.findings

    mend(meddling.index, RECORDED, found)
    assert not audit(meddling.index, RECORDED).wrong
    assert meddling.answers() == before


def test_missing_points_do_not_hide_changed_ones(meddling: Meddling) -> None:
    ids = meddling.ids(WREN)
    changed = point(ids[9], 1, 9 * HOP, FRAMES[WREN][0])
    meddling.update(
        UpdateOperation.delete_points(ids[:9]), UpdateOperation.upsert_points([changed])
    )

    found = audit(meddling.index, RECORDED)

    assert (found.missing, found.changed) == (9, 1)


def test_a_sound_that_was_never_indexed_is_orphaned_unless_it_came_during_the_audit(
    meddling: Meddling,
) -> None:
    [owl, _] = RECORDED.sounds
    one = replace(RECORDED, sounds=(owl,))

    found = audit(meddling.index, one)

    assert (found.expected, found.orphaned) == (9, 20)
    assert found.findings == [f"{WREN}: 20 points, but it was never indexed"]
    assert not audit(meddling.index, replace(one, indexed=lambda key: key == WREN)).wrong
    mend(meddling.index, one, found)
    assert meddling.index.describe("current").point_count == 9


def test_without_descriptors_nothing_is_rebuilt_and_nothing_is_lost(meddling: Meddling) -> None:
    [owl, _] = RECORDED.sounds
    recorded = replace(RECORDED, sounds=(owl, gone(WREN)))
    sound_one = audit(meddling.index, recorded)
    assert not sound_one.wrong
    assert sound_one.findings == [f"{WREN}: cannot be compared: descriptors/1.json: no such object"]
    lose(meddling)
    found = audit(meddling.index, recorded)

    with pytest.raises(NotFoundError, match=r"wren\.wav.*descriptors/1\.json.*resume the run"):
        mend(meddling.index, recorded, found)

    assert meddling.index.describe("current").published


def test_a_published_collection_without_recorded_sounds_is_left_alone(meddling: Meddling) -> None:
    bare = replace(RECORDED, sounds=())
    found = audit(meddling.index, bare)

    with pytest.raises(CorruptObjectError, match="no sound of it is recorded"):
        mend(meddling.index, bare, found)

    assert meddling.index.describe("birds").point_count == 29


def test_a_rebuilding_cut_short_is_completed_by_the_next(meddling: Meddling) -> None:
    before = meddling.answers()
    lose(meddling)
    asked = iter(range(2))

    def checkpoint() -> None:
        if next(asked, None) is None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mend(meddling.index, RECORDED, audit(meddling.index, RECORDED), checkpoint)
    cut_short = audit(meddling.index, RECORDED)
    assert cut_short.wrong
    mend(meddling.index, RECORDED, cut_short)

    assert meddling.answers() == before


def test_findings_are_at_most_twenty_lines_and_the_last_counts_the_rest(
    meddling: Meddling,
) -> None:
    absent = tuple(sound(f"audio/{number}.wav", FRAMES[OWL]) for number in range(30))

    findings = audit(
        meddling.index, replace(RECORDED, sounds=(*RECORDED.sounds, *absent), aliases=("other",))
    ).findings

    assert len(findings) == MOST_FINDINGS
    assert findings[0] == "alias 'other' does not point at it"
    assert findings[-1] == "and 12 more"
