import numpy as np
import pytest

from services.audio.track import DescriptorTrack
from services.errors import InvalidInputError, SettingsMismatchError


def track(values: np.ndarray, names: tuple[str, ...] = ("a", "b", "c")) -> DescriptorTrack:
    return DescriptorTrack(names, values, 44_100, 1024, "wren.wav")


def test_features_are_put_in_order_by_name() -> None:
    ordered = track(np.array([[1, 2, 3], [4, 5, 6]], np.float32)).ordered(["c", "a", "b"])

    assert ordered.feature_names == ("c", "a", "b")
    assert ordered.values.tolist() == [[3, 1, 2], [6, 4, 5]]
    assert ordered.values.flags.c_contiguous
    assert ordered.source == "wren.wav"


@pytest.mark.parametrize("names", [("a", "b"), ("a", "b", "d"), ("a", "b", "c", "d")])
def test_other_features_are_refused_naming_the_sound(names: tuple[str, ...]) -> None:
    with pytest.raises(SettingsMismatchError, match=r"wren\.wav.*(missing|not known)"):
        track(np.zeros((2, 3), np.float32)).ordered(names)


@pytest.mark.parametrize(
    "values",
    [
        np.zeros((2, 4), np.float32),
        np.zeros(3, np.float32),
        np.zeros((2, 3), np.float64),
        np.full((2, 3), np.nan, np.float32),
        np.full((2, 3), np.inf, np.float32),
    ],
    ids=["width", "dimensions", "dtype", "nan", "infinity"],
)
def test_values_that_cannot_be_are_refused_naming_the_sound(values: np.ndarray) -> None:
    with pytest.raises(InvalidInputError, match=r"wren\.wav") as caught:
        track(values)

    assert caught.value.culprit == "wren.wav"


def test_a_track_may_be_empty() -> None:
    assert track(np.zeros((0, 3), np.float32)).frame_count == 0
