"""What every predictor inherits from the port."""

import numpy as np
import pytest

from services.errors import CancelledError, InvalidInputError, SettingsMismatchError
from tests.unit.predictor.test_continuation import Dice, Repeater


def windows(count: int = 3, frames: int = 5) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(count, frames, 2)).astype(np.float32)


def test_many_windows_are_continued_as_one_by_one_each_by_its_seed() -> None:
    seeds = [4, 2**64 - 1, 0]
    together = Dice().predict_many(windows(), 6, seeds=seeds, temperature=0.5)
    for answer, window, seed in zip(together, windows(), seeds, strict=True):
        alone = Dice().predict(window, 6, seed=seed, temperature=0.5)
        np.testing.assert_array_equal(answer, alone)


def test_many_windows_are_refused_as_one() -> None:
    with pytest.raises(SettingsMismatchError):
        Repeater().predict_many(windows()[:, :, :1], 6, seeds=[0, 0, 0])
    with pytest.raises(InvalidInputError, match="deterministic: only 0"):
        Repeater().predict_many(windows(), 6, seeds=[0, 0, 0], temperature=1.0)


def test_whoever_asks_may_stop_it() -> None:
    def stop() -> None:
        raise CancelledError("enough")

    with pytest.raises(CancelledError):
        Repeater().predict(windows()[0], 6, checkpoint=stop)


def test_a_small_predictor_need_not_tell_its_size_nor_one_in_the_house_its_version() -> None:
    assert Repeater().size_bytes == 0
    assert Repeater().version == ""
