"""What a predictor learns from, and what it is checked on."""

import tracemalloc

import numpy as np
import pytest

from services.audio.track import DescriptorTrack
from services.errors import InvalidInputError, SettingsMismatchError
from services.predictor.training.corpus import Corpus

NAMES = ("mfcc0", "mfcc1", "mfcc2", "mfcc10")
SORTED = ("mfcc0", "mfcc1", "mfcc10", "mfcc2")


def track(frames: int, source: str, *, seed: int = 0, level: float = 0.0) -> DescriptorTrack:
    values = np.random.default_rng(seed).normal(level, 1.0, (frames, len(NAMES)))
    return DescriptorTrack(NAMES, values.astype(np.float32), 44100, 1024, source)


def corpus(
    *tracks: DescriptorTrack,
    window: int = 8,
    ahead: int = 2,
    deviations: float = 0.0,
    share: float = 0.1,
    seed: int = 1,
) -> Corpus:
    return Corpus.of(
        tracks,
        window_frames=window,
        frames_ahead=ahead,
        outlier_deviations=deviations,
        validation_share=share,
        seed=seed,
    )


def counted(frames: int) -> DescriptorTrack:
    """A track whose first feature is the number of the frame."""
    values = np.zeros((frames, len(NAMES)), np.float32)
    values[:, 0] = np.arange(frames)
    return DescriptorTrack(NAMES, values, 44100, 1024, "counted")


def test_whole_files_are_held_out() -> None:
    tracks = [track(60, f"{i}.wav", seed=i, level=10 * i) for i in range(10)]
    cut = corpus(*tracks)
    assert len(cut.held_out) == 1
    assert cut.held_out_start == 0
    assert len(cut.training.frames) == 9 * 60
    held = next(t for t in tracks if t.source == cut.held_out[0]).ordered(SORTED)
    raw = cut.validation.frames * cut.statistics.scales + cut.statistics.means
    np.testing.assert_allclose(raw, held.values, atol=1e-4)


def test_models_of_any_window_are_checked_on_the_same_files() -> None:
    tracks = [track(20 + 7 * i, f"{i}.wav", seed=i) for i in range(12)]
    held_out = {corpus(*tracks, window=window, seed=3).held_out for window in (4, 16, 40)}
    assert len(held_out) == 1


def test_files_too_short_for_a_window_do_not_take_the_place_of_checks() -> None:
    tracks = [*(track(9, f"short {i}", seed=i) for i in range(8)), track(90, "a"), track(80, "b")]
    for seed in range(10):
        cut = corpus(*tracks, window=30, seed=seed)
        assert len(cut.training.starts)
        assert len(cut.validation.starts)


@pytest.mark.parametrize("share", [0.5, 0.67, 0.9, 0.999])
def test_however_much_is_held_out_a_file_is_left_to_learn_from(share: float) -> None:
    for frames in ((60, 60, 60), (60, 50), (9, 9, 60, 60)):
        tracks = [track(count, f"{i}", seed=i) for i, count in enumerate(frames)]
        for seed in range(5):
            cut = corpus(*tracks, share=share, seed=seed)
            assert len(cut.training.starts)
            assert len(cut.validation.starts)


def test_no_frame_is_both_learnt_and_checked() -> None:
    for tracks in ([counted(100)], [track(50, "a", level=0), track(50, "b", level=100)]):
        cut = corpus(*tracks)
        learnt = {tuple(row) for row in np.round(cut.training.frames, 5).tolist()}
        checked = {tuple(row) for row in np.round(cut.validation.frames, 5).tolist()}
        assert learnt
        assert checked
        assert not learnt & checked


def test_a_single_file_keeps_its_end_with_a_window_between() -> None:
    cut = corpus(counted(200), window=8, ahead=2)
    raw = lambda part: part.frames[:, 0] * cut.statistics.scales[0] + cut.statistics.means[0]  # noqa: E731
    assert raw(cut.training)[0] == pytest.approx(0, abs=1e-3)
    assert raw(cut.validation)[-1] == pytest.approx(199, abs=1e-3)
    assert len(cut.validation.frames) == 20
    assert cut.held_out_start == 180
    assert raw(cut.validation)[0] - raw(cut.training)[-1] == pytest.approx(8 + 1, abs=1e-3)


def test_a_short_window_leaves_room_for_the_reach_of_deltas() -> None:
    cut = corpus(counted(200), window=1, ahead=1)
    raw = lambda part: part.frames[:, 0] * cut.statistics.scales[0] + cut.statistics.means[0]  # noqa: E731
    assert raw(cut.validation)[0] - raw(cut.training)[-1] == pytest.approx(8 + 1, abs=1e-3)


def test_a_single_file_of_the_shortest_length_will_do() -> None:
    cut = corpus(counted(28), window=8, ahead=2)
    assert len(cut.training.starts) == 1
    assert len(cut.validation.starts) == 1


def test_the_last_window_of_every_file_is_used() -> None:
    tracks = [track(20, "a"), track(33, "b"), track(10, "c"), track(500, "d"), track(40, "e")]
    cut = corpus(*tracks)
    for part in (cut.training, cut.validation):
        lengths = [
            t.frame_count for t in tracks if (t.source in cut.held_out) == (part is cut.validation)
        ]
        assert len(part.starts) == sum(length - 10 + 1 for length in lengths)
        ends = set(np.cumsum(lengths).tolist())
        assert ends <= set((part.starts + 10).tolist())


def test_no_window_reaches_from_one_file_into_the_next() -> None:
    cut = corpus(track(20, "a"), track(33, "b"), track(90, "c"), track(40, "d"))
    names = [name for name in "abcd" if name not in cut.held_out]
    ends = np.cumsum([{"a": 20, "b": 33, "c": 90, "d": 40}[name] for name in names])
    files = np.searchsorted(ends, cut.training.starts, side="right")
    last = np.searchsorted(ends, cut.training.starts + 9, side="right")
    assert (files == last).all()


def test_statistics_are_of_the_training_part_alone() -> None:
    tracks = [track(100, f"{i}", seed=i, level=5 * i) for i in range(6)]
    cut = corpus(*tracks)
    learnt = np.concatenate(
        [t.ordered(SORTED).values for t in tracks if t.source not in cut.held_out]
    )
    np.testing.assert_allclose(cut.statistics.means, learnt.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(np.sqrt(cut.statistics.variances), learnt.std(axis=0), rtol=1e-5)


def test_outliers_stay_in_the_sequence_and_do_not_count() -> None:
    spoilt = counted(400)
    spoilt.values[123, 1] = 1000.0
    cut = corpus(spoilt, deviations=5.0)
    raw = cut.training.frames[:, 0] * cut.statistics.scales[0] + cut.statistics.means[0]
    np.testing.assert_allclose(raw, np.arange(len(raw)), atol=1e-3)
    assert np.flatnonzero(cut.training.counts == 0).tolist() == [123]
    assert cut.statistics.means[1] == 0
    assert cut.statistics.frame_count == len(raw) - 1


def test_a_feature_that_never_changes_makes_no_outliers_and_no_infinities() -> None:
    cut = corpus(counted(100), deviations=5.0)
    assert (cut.training.counts == 1).all()
    assert np.isfinite(cut.training.frames).all()
    assert (cut.training.frames[:, 1:] == 0).all()


@pytest.mark.parametrize("level", [0.1, -1131.3708, 1e-3, 1e6])
def test_a_constant_feature_has_no_deviation_however_its_mean_is_rounded(level: float) -> None:
    tracks = [counted(997), counted(1013), counted(59)]
    for each in tracks:
        each.values[:, 1] = level
    cut = corpus(*tracks, deviations=5.0)
    place = cut.statistics.feature_names.index("mfcc1")
    assert cut.statistics.scales[place] == 1
    assert np.abs(cut.training.frames[:, place]).max() < 1e-3 * max(abs(level), 1)


def test_a_feature_that_hardly_changes_keeps_its_deviation() -> None:
    quiet = track(500, "quiet")
    quiet.values[:] *= 1e-9
    other = track(500, "other", seed=1)
    other.values[:] *= 1e-9
    cut = corpus(quiet, other)
    np.testing.assert_allclose(cut.training.frames.std(axis=0), 1, rtol=1e-3)


def test_a_corpus_of_outliers_alone_is_refused() -> None:
    with pytest.raises(
        InvalidInputError, match=r"every frame .* 0\.01 standard deviations"
    ) as told:
        corpus(track(50, "a"), track(50, "b", seed=1), deviations=0.01)
    assert told.value.culprit == "outlier_deviations"


def test_frames_lie_in_memory_once_whatever_the_window() -> None:
    tracks = [track(2500, f"{seed}", seed=seed) for seed in range(40)]
    for window in (1, 1000):
        tracemalloc.start()
        cut = corpus(*tracks, window=window, deviations=5.0)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        kept = 40 * 2500 * (len(NAMES) * 4 + 4 + 8)
        assert len(cut.training.frames) + len(cut.validation.frames) == 40 * 2500
        assert peak < 1.3 * kept


def test_columns_are_put_in_string_order_by_name() -> None:
    one = track(50, "one", seed=1)
    other = track(50, "other", seed=2).ordered(("mfcc2", "mfcc10", "mfcc1", "mfcc0"))
    cut = corpus(one, other)
    assert cut.statistics.feature_names == SORTED
    learnt = one if cut.held_out == ("other",) else other
    np.testing.assert_allclose(
        cut.statistics.means, learnt.ordered(SORTED).values.mean(axis=0), atol=1e-5
    )


def test_sounds_too_short_for_a_window_are_named_and_left_out() -> None:
    cut = corpus(track(9, "short.wav"), track(80, "a"), track(80, "b"))
    assert cut.too_short == ("short.wav",)
    assert "short.wav" not in cut.held_out


def test_files_held_out_never_take_most_of_the_corpus() -> None:
    for seed in range(20):
        cut = corpus(track(5000, "long"), track(60, "a"), track(70, "b"), seed=seed)
        assert "long" not in cut.held_out


def test_nothing_long_enough_names_the_shortest_need() -> None:
    with pytest.raises(InvalidInputError, match="longest has 9 frames, the shortest need is 10"):
        corpus(track(9, "a"), track(5, "b"))


def test_a_single_file_that_is_too_short_is_named_with_its_need() -> None:
    with pytest.raises(InvalidInputError, match=r"only\.wav: 27 frames .* need .* is 28"):
        corpus(track(27, "only.wav"))


def test_the_only_sound_that_is_long_enough_is_cut_or_named_beside_the_others() -> None:
    cut = corpus(track(9, "a"), track(28, "long.wav"), track(5, "b"))
    assert cut.held_out == ("long.wav",)
    assert cut.too_short == ("a", "b")
    with pytest.raises(
        InvalidInputError, match=r"long\.wav: 27 .*; the 2 others have fewer than 10"
    ):
        corpus(track(9, "a"), track(27, "long.wav"), track(5, "b"))


def test_no_tracks_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="no sounds"):
        corpus()


@pytest.mark.parametrize(("rate", "hop"), [(22050, 1024), (44100, 512)])
def test_tracks_of_other_rates_and_hops_are_refused_by_name(rate: int, hop: int) -> None:
    odd = DescriptorTrack(NAMES, np.zeros((50, 4), np.float32), rate, hop, "odd.wav")
    with pytest.raises(SettingsMismatchError, match=r"odd\.wav.*good\.wav") as raised:
        corpus(track(50, "good.wav"), odd)
    assert raised.value.culprit == "odd.wav"


def test_tracks_of_other_features_are_refused_by_name() -> None:
    odd = DescriptorTrack(("mfcc0",), np.zeros((50, 1), np.float32), 44100, 1024, "odd.wav")
    with pytest.raises(SettingsMismatchError, match=r"odd\.wav"):
        corpus(track(50, "good.wav"), odd)
