"""Deltas that follow from static coefficients are those that the descriptor service extracts."""

import numpy as np
import pytest

from services.descriptor import mfcc
from services.predictor.deltas import names_with_deltas, statics_of, with_deltas


def test_computed_deltas_are_the_extracted_ones() -> None:
    noise = np.random.default_rng(1).normal(0, 0.1, 44100).astype(np.float32)
    extracted, _ = mfcc.extract(noise, mfcc.ExtractionSettings())
    np.testing.assert_allclose(with_deltas(extracted[:, :13]), extracted, atol=1e-3)


def test_the_statics_are_the_first_third_by_number_whatever_the_order() -> None:
    names = sorted(f"mfcc{number}" for number in range(39))
    assert statics_of(names) == tuple(f"mfcc{number}" for number in range(13))
    assert sorted(names_with_deltas(statics_of(names))) == names


@pytest.mark.parametrize("names", [["mfcc0", "mfcc1"], ["mfcc0", "mfcc1", "mfcc3"], ["loudness"]])
def test_other_features_have_no_statics(names: list[str]) -> None:
    assert statics_of(names) == ()
