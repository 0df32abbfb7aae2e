import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.descriptor.spool import BLOCK_FRAMES, Spool
from services.errors import CancelledError


def frames(count: int, features: int = 3) -> np.ndarray:
    return np.random.default_rng(count).normal(size=(features, count)).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(count=st.integers(0, 3 * BLOCK_FRAMES + 1), block=st.integers(100, 2_500))
def test_what_comes_in_any_blocks_goes_in_blocks_features_and_rows(count: int, block: int) -> None:
    array = frames(count)
    with Spool(3) as spool:
        spool.fill(array[:, start : start + block] for start in range(0, count, block))

        assert spool.frame_count == count
        empty = np.empty((3, 0), np.float32)
        assert np.array_equal(np.concatenate([empty, *spool.blocks()], axis=1), array)
        assert np.array_equal(np.concatenate([empty.T, *spool.rows()]), array.T)
        for feature in range(3):
            assert np.array_equal(
                np.concatenate([empty[0], *spool.feature(feature)]), array[feature]
            )


def test_features_may_come_one_by_one() -> None:
    array = frames(2 * BLOCK_FRAMES + 5)
    with Spool(3) as spool:
        for feature in (2, 0, 1):
            pieces = np.split(array[feature], [7, 1_500])
            assert spool.fill_feature(feature, pieces) == array.shape[1]

        assert np.array_equal(np.concatenate(list(spool.blocks()), axis=1), array)


def test_many_frames_lie_in_a_file_without_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with Spool(128) as spool:
        spool.fill(frames(20 * BLOCK_FRAMES, 128) for _ in range(2))

        assert spool.frame_count == 40 * BLOCK_FRAMES
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("left_at", [1, 2, 3, 5])
def test_the_checkpoint_ends_writing_and_reading(left_at: int) -> None:
    calls = 0

    def checkpoint() -> None:
        nonlocal calls
        calls += 1
        if calls == left_at:
            raise CancelledError("gone")

    def work() -> Iterator[np.ndarray]:
        with Spool(3, checkpoint) as spool:
            spool.fill([frames(3 * BLOCK_FRAMES)])
            yield from spool.blocks()

    with pytest.raises(CancelledError):
        list(work())

    assert calls == left_at
