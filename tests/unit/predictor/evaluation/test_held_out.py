from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from services.audio.track import DescriptorTrack
from services.errors import InvalidInputError, NotFoundError, SettingsMismatchError
from services.predictor.evaluation.held_out import divided, framing_of, refuse_other_tracks
from services.predictor.training.corpus import Corpus


def track(name: str, frames: int = 100) -> DescriptorTrack:
    values = np.arange(frames, dtype=np.float32)[:, None] + [0.0, 0.5]
    return DescriptorTrack(("a", "b"), values.astype(np.float32), 44100, 1024, name)


def config(*held: str, window: int = 10, start: int = 0, hop: int = 1024) -> dict[str, Any]:
    return {
        "window_frames": window,
        "forecast_frames": 1,
        "sample_rate_hertz": 44100,
        "hop_length_samples": hop,
        "training": {"validation_files": list(held), "held_out_start": start},
    }


DIFFERENT = [track(f"{name}.wav", 100 + ord(name)) for name in "abcd"]
FOUR = [track(f"{name}.wav") for name in "abcd"]


def sources(tracks: tuple[DescriptorTrack, ...]) -> list[str]:
    return [each.source for each in tracks]


def test_the_files_that_training_kept_back_are_held_out() -> None:
    parts = divided({"m": config("c.wav", "a.wav"), "n": config("a.wav", "c.wav")}, FOUR)
    assert sources(parts.training) == ["b.wav", "d.wav"]
    assert sources(parts.held_out) == ["a.wav", "c.wav"]


def test_unheard_tracks_are_the_held_out_part_and_the_training_part_stays() -> None:
    unheard = [track("x.wav", 120)]
    parts = divided({"m": config("c.wav", "a.wav")}, DIFFERENT, unheard)
    assert sources(parts.training) == ["b.wav", "d.wav"]
    assert sources(parts.held_out) == ["x.wav"]
    assert parts.unheard
    assert not divided({"m": config("a.wav")}, DIFFERENT).unheard


@pytest.mark.parametrize("known", [0, 1])
def test_an_unheard_track_with_the_descriptors_of_any_recording_of_the_training_is_named(
    known: int,
) -> None:
    copy = replace(DIFFERENT[known], source="copy.wav")
    with pytest.raises(InvalidInputError, match=rf"copy\.wav has .* of {'ab'[known]}\.wav"):
        divided({"m": config("a.wav")}, DIFFERENT, [copy])


@pytest.mark.parametrize(("told", "taken"), [((5.0, 3.0), 3.0), ((0.0, 4.0), 4.0), ((0.0,), 0.0)])
def test_outliers_are_those_of_the_strictest_training(
    told: tuple[float, ...], taken: float
) -> None:
    configs = {str(each): config("a.wav") for each in told}
    for each in told:
        configs[str(each)]["training"]["outlier_deviations"] = each
    assert divided(configs, FOUR).outlier_deviations == taken
    assert divided({"old": config("a.wav")}, FOUR).outlier_deviations == 5


def test_a_foreign_model_follows_the_others() -> None:
    foreign = config() | {"training": {"selected_model": "LSTM"}}
    parts = divided({"foreign": foreign, "own": config("b.wav")}, FOUR)
    assert sources(parts.held_out) == ["b.wav"]
    with pytest.raises(InvalidInputError, match="nothing is known of what was kept back"):
        divided({"foreign": foreign}, FOUR)


def test_models_that_kept_back_different_files_are_both_named() -> None:
    with pytest.raises(SettingsMismatchError, match=r"one and other .*\(b\.wav is one of them\)"):
        divided({"one": config("a.wav", "b.wav"), "other": config("a.wav")}, FOUR)


def test_a_file_that_is_missing_is_named() -> None:
    with pytest.raises(NotFoundError, match=r"x\.wav and 1 more was kept back"):
        divided({"one": config("x.wav", "y.wav", "a.wav")}, FOUR)
    with pytest.raises(InvalidInputError, match="no recordings"):
        divided({"one": config("x.wav")}, [])


@pytest.mark.parametrize("others", [[], [track("short.wav", 8)]])
def test_of_a_single_file_that_is_long_enough_the_end_is_held_out(
    others: list[DescriptorTrack],
) -> None:
    whole = track("a.wav", 200)
    configs = {}
    for window in (10, 30):
        cut = Corpus.of(
            [whole, *others],
            window_frames=window,
            frames_ahead=1,
            outlier_deviations=5,
            validation_share=0.2,
            seed=0,
        )
        configs[f"of {window}"] = config("a.wav", window=window, start=cut.held_out_start)
        assert len(cut.training.frames) >= 130
    parts = divided(configs, [whole, *others])
    # A fifth is held out; a window of the longer kind belongs to neither part.
    assert parts.held_out[0].values[:, 0].tolist() == list(range(160, 200))
    assert sources(parts.training) == ["a.wav"]
    assert parts.training[0].values[-1, 0] == 129


def test_of_ends_that_begin_at_different_frames_what_all_kept_back_is_held_out() -> None:
    configs = {"m": config("a.wav", start=150), "n": config("a.wav", start=170)}
    parts = divided(configs, [track("a.wav", 200)])
    assert parts.held_out[0].values[0, 0] == 170
    assert parts.training[0].values[-1, 0] == 139


def test_a_file_too_short_for_what_was_kept_back_of_it_is_named() -> None:
    for start, window in ((100, 10), (80, 90)):
        with pytest.raises(InvalidInputError, match=r"a\.wav: 100 frames are too few to be judged"):
            divided({"m": config("a.wav", window=window, start=start)}, [track("a.wav")])


def test_models_that_kept_back_the_whole_and_the_end_of_a_file_are_both_named() -> None:
    configs = {"whole": config("a.wav"), "end": config("a.wav", start=80)}
    with pytest.raises(SettingsMismatchError, match=r"whole kept back .* a\.wav, end its end from"):
        divided(configs, FOUR)


def test_models_of_other_framings_are_both_named() -> None:
    assert framing_of({"one": config("a.wav")}) == (44100, 1024)
    with pytest.raises(SettingsMismatchError, match=r"one knows .* 1024, other at .* 512"):
        framing_of({"one": config("a.wav"), "other": config("a.wav", hop=512)})
    with pytest.raises(SettingsMismatchError, match=r"hop of 512, a\.wav is described"):
        refuse_other_tracks({"one": config("a.wav", hop=512)}, FOUR)
