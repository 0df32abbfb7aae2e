import numpy as np
import pytest

from services.errors import InvalidInputError
from services.predictor.evaluation import novelty as module
from services.predictor.evaluation.novelty import nearest, novelty, windows_of


def sequences(count: int, frames: int, seed: int) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        values = random.standard_normal((frames, 4))
        for i in range(1, frames):
            values[i] += 0.8 * values[i - 1]
        made.append(values)
    return made


KNOWN = sequences(3, 700, 0)


def test_a_copy_of_training_windows_is_caught_wherever_it_was_copied_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "BLOCK_WINDOWS", 64)
    copied = [
        sequence[first : first + 30] for sequence, first in zip(KNOWN, (0, 337, 670), strict=True)
    ]
    distances = nearest(windows_of(copied, 33), KNOWN)
    assert distances.max() < 1e-6
    recorded = nearest(windows_of(sequences(2, 300, 5), 40), KNOWN)
    figures = novelty(distances, recorded)
    assert figures["near_copy_share"] == 1
    assert figures["nearest_window_50"] < 1e-6 < figures["recorded_nearest_window_least"]


def test_new_music_is_as_far_as_held_out_music() -> None:
    own, recorded = (nearest(windows_of(sequences(4, 400, s), 200), KNOWN) for s in (7, 8))
    figures = novelty(own, recorded)
    assert figures["near_copy_share"] < 0.05
    assert figures["nearest_window_50"] == pytest.approx(
        figures["recorded_nearest_window_50"], rel=0.3
    )


def test_the_nearest_window_is_that_of_plain_brute_force(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = windows_of(sequences(1, 60, 3), 10)
    plain = [
        min(
            np.sqrt(np.square(window.reshape(20, 4) - sequence[first : first + 20]).mean())
            for sequence in KNOWN
            for first in range(len(sequence) - 19)
        )
        for window in asked
    ]
    monkeypatch.setattr(module, "BLOCK_WINDOWS", 100)
    assert nearest(asked, KNOWN) == pytest.approx(plain, rel=1e-4)


def test_windows_are_spread_over_all_that_is_long_enough() -> None:
    some = [np.full((30, 1), 0.0), np.full((5, 1), 1.0), np.full((30, 1), 2.0)]
    assert sorted(set(windows_of(some, 6)[:, 0].tolist())) == [0.0, 2.0]
    assert len(windows_of(some, 1000)) == 22
    with pytest.raises(InvalidInputError, match="20 frames of a window"):
        windows_of([np.zeros((19, 1))], 4)
