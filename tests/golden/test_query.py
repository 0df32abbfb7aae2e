"""The published answers, row for row, through the index that people run."""

import json
from pathlib import Path

import numpy as np
import pytest

from services.audio.match_table import MatchTable, SourceRef
from services.audio.statistics import FeatureStatistics
from services.audio.track import DescriptorTrack
from services.audio.track_json import read_tracks
from services.query.edge import EdgeIndex
from services.query.index import CollectionSpec, Metric, Scaling
from services.query.matching import index_track, match_track

GOLDEN = Path(__file__).parent / "query"
EXPECTED = json.loads((GOLDEN / "expected.json").read_bytes())
ROWS = {
    (source, sample): row
    for row, (source, sample) in enumerate(
        zip(
            *(
                json.loads((GOLDEN / "AUDIOS_database.json").read_bytes())[column]
                for column in ("_id", "_sample")
            ),
            strict=True,
        )
    )
}


def read(name: str) -> list[DescriptorTrack]:
    return read_tracks((GOLDEN / name).read_bytes(), source=name)


def matched(folder: Path, metric: Metric, scaling: Scaling = Scaling.NONE) -> MatchTable:
    tracks = read("AUDIOS_database.json")
    statistics = FeatureStatistics.of(tracks[0])
    for track in tracks[1:]:
        statistics = statistics.merged(FeatureStatistics.of(track))
    spec = CollectionSpec(
        tracks[0].feature_names,
        tracks[0].sample_rate_hertz,
        tracks[0].hop_length_samples,
        metric,
        scaling,
        statistics,
    )
    index = EdgeIndex(folder)
    index.create("golden", spec)
    for track in tracks:
        index_track(index, "golden", SourceRef(track.source, "0" * 64, 1, "audio/wav"), track)
    index.publish("golden")
    (query,) = read("lny7atep_input_prediction.json")
    table = match_track(index, "golden", query)
    index.close()
    return table


def rows(table: MatchTable) -> list[int]:
    return [
        ROWS[table.sources[source].key, int(start)]
        for source, start in zip(table.source_indices[:, 0], table.start_samples[:, 0], strict=True)
    ]


def test_the_nearest_moments_by_euclidean_distance_are_the_published_ones(tmp_path: Path) -> None:
    table = matched(tmp_path, Metric.EUCLIDEAN)

    keys = [table.sources[number].key for number in table.source_indices[:, 0]]
    assert keys == EXPECTED["euclidean"]["_id"]
    assert table.start_samples[:, 0].tolist() == EXPECTED["euclidean"]["_sample"]
    assert rows(table) == EXPECTED["euclidean_row"]
    np.testing.assert_array_equal(table.distances[:, 0], np.float32(EXPECTED["euclidean_distance"]))


@pytest.mark.parametrize(
    ("metric", "scaling", "answer"),
    [
        (Metric.COSINE, Scaling.NONE, "cosine"),
        (Metric.MANHATTAN, Scaling.NONE, "manhattan"),
        (Metric.EUCLIDEAN, Scaling.STANDARDIZED, "standardized_euclidean"),
    ],
)
def test_other_distances_choose_the_rows_that_were_worked_out_for_them(
    tmp_path: Path, metric: Metric, scaling: Scaling, answer: str
) -> None:
    assert rows(matched(tmp_path, metric, scaling)) == EXPECTED[answer]["row"]
