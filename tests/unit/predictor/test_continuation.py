"""Tracks continued: names, settings and lengths, with a predictor of another kind."""

import numpy as np
import pytest

from services.audio.track import DescriptorTrack
from services.errors import (
    DemiurgeError,
    InvalidInputError,
    SettingsMismatchError,
    WindowTooLongError,
)
from services.predictor.continuation import continue_track, pieces
from services.predictor.port import Checkpoint, FloatArray, Predictor


class Repeater(Predictor):
    """Repeats the frames that it looked at, a little louder by temperature and seed."""

    architecture = "Repeater"
    window_frames = 3
    feature_names = ("b", "a")
    sample_rate_hertz = 44100
    hop_length_samples = 1024
    stochastic = False

    def _continue(
        self,
        window: FloatArray,
        steps: int,
        seed: int,
        temperature: float,
        checkpoint: Checkpoint,
    ) -> FloatArray:
        checkpoint()
        assert window.shape == (3, 2)
        repeated = np.resize(window, (steps, 2)) + np.float32(temperature * seed)
        return repeated.astype(np.float32)


class Dice(Repeater):
    stochastic = True


def track(frames: int = 4, rate: int = 44100, hop: int = 1024) -> DescriptorTrack:
    values = np.stack([np.arange(frames), 100 + np.arange(frames)], axis=1).astype(np.float32)
    return DescriptorTrack(("a", "b"), values, rate, hop, "owl.wav")


def test_the_answer_has_the_columns_of_the_question() -> None:
    answer = continue_track(Repeater(), track(3), 5)
    assert answer.feature_names == ("a", "b")
    np.testing.assert_array_equal(answer.values[:, 0], [0, 1, 2, 0, 1])
    np.testing.assert_array_equal(answer.values[:, 1], [100, 101, 102, 100, 101])
    assert (answer.sample_rate_hertz, answer.hop_length_samples) == (44100, 1024)
    assert answer.source == "owl.wav"


def test_only_the_last_frames_of_a_longer_window_count() -> None:
    assert continue_track(Repeater(), track(9), 3).values[:, 0].tolist() == [6, 7, 8]


def test_a_sound_shorter_than_the_window_is_named() -> None:
    with pytest.raises(WindowTooLongError, match=r"owl\.wav: has 2 frames.*looks at 3") as raised:
        continue_track(Repeater(), track(2), 3)
    assert raised.value.culprit == "owl.wav"


@pytest.mark.parametrize(
    ("odd", "said"), [(track(rate=22050), "22050.*44100"), (track(hop=512), "512.*1024")]
)
def test_rates_and_hops_that_do_not_agree_are_both_named(odd: DescriptorTrack, said: str) -> None:
    with pytest.raises(SettingsMismatchError, match=said):
        continue_track(Repeater(), odd, 3)


def test_features_that_do_not_fit_are_named() -> None:
    odd = DescriptorTrack(("a", "c"), np.zeros((4, 2), np.float32), 44100, 1024, "owl.wav")
    with pytest.raises(SettingsMismatchError, match=r"missing \['b'\], not known \['c'\]"):
        continue_track(Repeater(), odd, 3)


def test_a_deterministic_predictor_takes_no_temperature() -> None:
    with pytest.raises(InvalidInputError, match="only 0 works") as raised:
        continue_track(Repeater(), track(), 3, temperature=0.5)
    assert raised.value.culprit == "temperature"


def test_a_stochastic_predictor_takes_seed_and_temperature() -> None:
    answer = continue_track(Dice(), track(3), 1, seed=4, temperature=0.5)
    assert answer.values[0].tolist() == [2, 102]
    with pytest.raises(InvalidInputError, match="at least 0"):
        continue_track(Dice(), track(), 3, temperature=-1)


def test_no_steps_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="steps is 0"):
        continue_track(Repeater(), track(), 0)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (np.zeros((2, 2), np.float32), r"shape \(2, 2\), not \(3, 2\)"),
        (np.zeros((3, 1), np.float32), r"shape \(3, 1\), not \(3, 2\)"),
        (np.zeros(3, np.float32), r"shape \(3,\), not \(3, 2\)"),
        (np.zeros((3, 2)), "float64 values, not float32"),
        ([[0.0, 0.0]] * 3, "with list, not an array"),
        (
            np.array([[0, 0], [0, np.nan], [0, 0]], np.float32),
            "values that are not finite, from frame 1 on",
        ),
    ],
    ids=["too short", "too narrow", "flat", "float64", "list", "nan"],
)
def test_an_answer_that_is_none_is_the_predictors_fault(answer: FloatArray, words: str) -> None:
    class Careless(Repeater):
        architecture = "Careless"

        def _continue(self, *_: object) -> FloatArray:
            return answer

    with pytest.raises(DemiurgeError, match=f"this Careless answered .*{words}") as raised:
        continue_track(Careless(), track(), 3)
    assert type(raised.value) is DemiurgeError
    assert "owl.wav" not in raised.value.message


def test_pieces_join_to_the_whole_and_none_is_too_large() -> None:
    whole = track(100)
    parts = list(pieces(whole, 8 * 7 + 5))
    assert [part.frame_count for part in parts] == [7] * 14 + [2]
    assert all(part.values.nbytes <= 8 * 7 + 5 for part in parts)
    np.testing.assert_array_equal(np.concatenate([part.values for part in parts]), whole.values)
