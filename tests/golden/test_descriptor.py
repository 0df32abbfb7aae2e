"""Descriptors equal to those of the published system (tests/golden/descriptor)."""

from pathlib import Path

import numpy as np
import pytest

from services.audio.track_json import read_tracks
from services.descriptor.extraction import extract_file
from services.descriptor.mfcc import FEATURE_NAMES, ExtractionSettings

GOLDEN = Path(__file__).parent / "descriptor"
AGREEMENT = 1e-3


@pytest.mark.parametrize("stem", ["input", "input_22050_stereo"])
def test_descriptors_equal_the_published_ones(stem: str) -> None:
    published = (GOLDEN / f"{stem}.json").read_bytes()
    [expected] = read_tracks(published, source=f"{stem}.json")

    track = extract_file(GOLDEN / f"{stem}.wav", name=f"{stem}.wav", settings=ExtractionSettings())

    assert track.source == expected.source == f"{stem}.wav"
    assert track.feature_names == expected.feature_names == FEATURE_NAMES
    assert track.sample_rate_hertz == expected.sample_rate_hertz
    assert track.hop_length_samples == expected.hop_length_samples
    assert track.values.shape == expected.values.shape
    largest = np.abs(expected.values).max(axis=0)
    assert (np.abs(track.values - expected.values) / largest).max() < AGREEMENT
