"""Every index can be compared with what was indexed, and built anew to the same answers."""

from dataclasses import replace

import numpy as np
import pytest

from services.audio.match_table import SourceRef
from services.query.audit import RecordedCollection, RecordedSound, audit, mend
from services.query.index import CollectionSpec, Metric, SearchMode, VectorIndex

FRAMES = np.random.default_rng(3).normal(size=(3, 700, 4)).astype(np.float32)
QUERIES = np.random.default_rng(4).normal(size=(8, 4)).astype(np.float32)


def recorded(metric: Metric) -> RecordedCollection:
    names = tuple(f"mfcc{number}" for number in range(4))
    sounds = tuple(
        RecordedSound(
            SourceRef(f"audio/{number}.wav", f"{number}" * 64, 9, "audio/wav"),
            len(frames),
            lambda frames=frames: frames,
        )
        for number, frames in enumerate(FRAMES)
    )
    spec = CollectionSpec(names, 44100, 1024, metric)
    return RecordedCollection("birds", spec, sounds, skip_graph=True, aliases=("current",))


def answers(index: VectorIndex) -> list[object]:
    found = index.search("current", QUERIES, 4, SearchMode.EXACT)
    columns = (found.source_indices, found.start_samples, found.distances)
    return [found.sources, *(column.tolist() for column in columns)]


@pytest.mark.parametrize("metric", [Metric.EUCLIDEAN, Metric.COSINE])
def test_a_collection_built_from_what_was_recorded_is_found_as_recorded(
    index: VectorIndex, metric: Metric
) -> None:
    wanted = recorded(metric)
    lost = audit(index, wanted)
    assert (lost.lost, lost.missing, lost.expected) == (True, 2100, 2100)

    mend(index, wanted, lost)

    assert not audit(index, wanted).findings
    before = answers(index)
    fewer = replace(wanted, sounds=wanted.sounds[1:])
    found = audit(index, fewer)
    assert (found.orphaned, found.missing, found.changed) == (700, 0, 0)
    mend(index, fewer, found)
    assert not audit(index, fewer).findings
    mend(index, wanted, audit(index, wanted))
    assert answers(index) == before
