"""The mixer's piece: its length, its positions, its seams."""

import io

import numpy as np
import pytest
import soundfile

from services.audio.match_table import SourceRef
from services.audio.reading import read_audio
from services.audio.writing import Encoding, write_audio
from services.errors import InvalidInputError
from services.playback.mixer import Mixer
from services.playback.segments import Placement, RenderSettings

HOP = 1024
FADE = 970  # 22 ms at 44.1 kHz
HALF = FADE // 2


def rendered(mixer, block_frames=16_384):
    return np.concatenate(list(mixer.render(block_frames)))


# What the published engine gets wrong.


def test_forty_frames_last_929_ms_and_not_491(sounds, table_of, noise):
    source = sounds.add("a.wav", noise(80 * HOP))
    # Every other frame, so that no two are contiguous and every seam is a crossfade.
    table = table_of([source], [(0, 2 * i * HOP) for i in range(40)])
    mixer = Mixer(table, sounds.read)
    piece = rendered(mixer)
    assert len(piece) == mixer.sample_count == 40 * HOP
    assert round(1000 * len(piece) / 44_100) == 929


def test_positions_are_exact_to_the_sample_and_not_whole_milliseconds(sounds, table_of, noise):
    samples = noise(20 * HOP)
    source = sounds.add("a.wav", samples)
    starts = [777, 10_001, 3, 5_555, 12_345]
    assert all(start * 1000 % 44_100 for start in starts)
    piece = rendered(Mixer(table_of([source], [(0, start) for start in starts]), sounds.read))
    for frame, start in enumerate(starts):
        inside = slice(HALF + 1, HOP - HALF - 1)
        np.testing.assert_array_equal(
            piece[frame * HOP : (frame + 1) * HOP][inside], samples[start : start + HOP][inside]
        )


def test_a_match_at_frame_0_adds_one_hop_and_not_the_whole_file(sounds, table_of, noise):
    samples = noise(30 * HOP)
    source = sounds.add("a.wav", samples)
    piece = rendered(Mixer(table_of([source], [(0, 0)]), sounds.read))
    np.testing.assert_array_equal(piece, samples[:HOP])
    repeated = rendered(Mixer(table_of([source], [(0, 0)] * 5), sounds.read))
    assert len(repeated) == 5 * HOP


@pytest.mark.parametrize("surplus", [0, 1, 300, HOP - 1])
def test_a_match_at_the_last_frame_shifts_back_to_be_whole(sounds, table_of, noise, surplus):
    samples = noise(10 * HOP + surplus)
    source = sounds.add("a.wav", samples)
    # Centred descriptor frames: one starts at 10 hops even where nothing follows.
    piece = rendered(Mixer(table_of([source], [(0, 10 * HOP)]), sounds.read))
    np.testing.assert_array_equal(piece, samples[-HOP:])


def test_each_source_is_opened_once(sounds, table_of, noise):
    sources = [sounds.add(f"{i}.wav", noise(4 * HOP, seed=i)) for i in range(200)]
    generator = np.random.default_rng(1)
    matches = [(int(generator.integers(200)), int(generator.integers(4 * HOP))) for _ in range(900)]
    mixer = Mixer(table_of(sources, matches), sounds.read)
    rendered(mixer)
    heard = {f"{index}.wav" for index, _ in matches}
    assert sounds.opens == dict.fromkeys(heard, 1)
    assert mixer.source_count == len(heard)


# A file that is matched frame by frame comes back.


@pytest.mark.parametrize(
    "width",
    [
        ("PCM_16", np.int16, Encoding.WAV_PCM16),
        ("PCM_24", np.int32, Encoding.WAV_PCM24),
        ("FLOAT", np.float32, Encoding.WAV_FLOAT),
    ],
)
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_matches_from_0_to_n_give_the_file_back_bit_for_bit(tmp_path, table_of, width, channels):
    subtype, dtype, encoding = width
    generator = np.random.default_rng(2)
    count = 12 * HOP
    if dtype is np.float32:
        original = generator.uniform(-1.5, 1.5, (count, channels)).astype(np.float32)
    else:
        bounds = np.iinfo(dtype)
        original = generator.integers(bounds.min, bounds.max, (count, channels), dtype, True)
        original[:2] = [[bounds.min], [bounds.max]]
        if subtype == "PCM_24":
            original = original >> 8 << 8
    soundfile.write(tmp_path / "in.wav", original, 44_100, subtype)
    source = SourceRef("in.wav", "0" * 64, 1, "audio/wav")
    table = table_of([source], [(0, i * HOP) for i in range(12)])
    mixer = Mixer(table, lambda ref: read_audio(tmp_path / ref.key, name=ref.key))
    write_audio(tmp_path / "out.wav", rendered(mixer), 44_100, encoding)
    again, rate = soundfile.read(tmp_path / "out.wav", dtype=np.dtype(dtype).name, always_2d=True)
    assert rate == 44_100
    assert len(mixer.segments) == 1
    np.testing.assert_array_equal(again, original)


@pytest.mark.parametrize("surplus", [0, 1, 611])
def test_a_file_comes_back_whole_when_its_last_frame_runs_over_its_end(
    sounds, table_of, noise, surplus
):
    samples = noise(9 * HOP + surplus)
    source = sounds.add("a.wav", samples)
    piece = rendered(Mixer(table_of([source], [(0, i * HOP) for i in range(10)]), sounds.read))
    assert len(piece) == 10 * HOP
    np.testing.assert_array_equal(piece[: len(samples)], samples)
    # Nothing is made up beyond the end: the last sample is held.
    assert (piece[len(samples) :] == samples[-1]).all()


def test_contiguous_frames_join_without_a_seam_inside_a_piece(sounds, table_of, noise):
    a, b = noise(9 * HOP, seed=1), noise(9 * HOP, seed=2)
    sources = [sounds.add("a.wav", a), sounds.add("b.wav", b)]
    matches = [(0, 5000), (1, 100), (1, 100 + HOP), (1, 100 + 2 * HOP), (0, 0)]
    piece = rendered(Mixer(table_of(sources, matches), sounds.read))
    np.testing.assert_array_equal(
        piece[HOP + HALF : 4 * HOP - HALF], b[100 + HALF : 100 + 3 * HOP - HALF]
    )


def test_frames_that_advance_by_anything_but_a_hop_are_crossfaded(sounds, table_of, noise):
    source = sounds.add("a.wav", noise(9 * HOP))
    for advance in (HOP - 1, HOP + 1, 0):
        assert len(Mixer(table_of([source], [(0, 0), (0, advance)]), sounds.read).segments) == 2


def test_the_same_start_in_another_file_is_not_contiguous(sounds, table_of, noise):
    sources = [sounds.add("a.wav", noise(4 * HOP)), sounds.add("b.wav", noise(4 * HOP, seed=9))]
    assert len(Mixer(table_of(sources, [(0, 0), (1, HOP)]), sounds.read).segments) == 2


# Fades.


def test_a_seam_is_a_linear_fade_over_half_a_crossfade_on_both_sides(sounds, table_of, noise):
    a, b = noise(9 * HOP, seed=1), noise(9 * HOP, seed=2)
    sources = [sounds.add("a.wav", a), sounds.add("b.wav", b)]
    piece = rendered(Mixer(table_of(sources, [(0, 2000), (1, 3000)]), sounds.read))
    gain = ((np.arange(FADE) + 0.5) / FADE)[:, np.newaxis]
    leaving = a[2000 + HOP - HALF : 2000 + HOP + HALF]
    coming = b[3000 - HALF : 3000 + HALF]
    expected = np.concatenate(
        [
            a[2000 : 2000 + HOP - HALF],
            (1 - gain) * leaving + gain * coming,
            b[3000 + HALF : 3000 + HOP],
        ]
    )
    np.testing.assert_allclose(piece, expected, atol=1e-6)


def test_gains_sum_to_one_so_that_a_constant_stays_constant(sounds, table_of):
    sources = [sounds.add(f"{i}.wav", np.full(3 * HOP + i, 0.7)) for i in range(3)]
    matches = [(i % 3, start) for i, start in enumerate([0, 3 * HOP, 0, 17, 3 * HOP, 999, 0])]
    piece = rendered(Mixer(table_of(sources, matches), sounds.read))
    assert (piece == np.float32(0.7)).all()


def test_no_crossfade_is_a_hard_cut(sounds, table_of, noise):
    a = noise(9 * HOP)
    source = sounds.add("a.wav", a)
    table = table_of([source], [(0, 5000), (0, 0)])
    piece = rendered(Mixer(table, sounds.read, RenderSettings(crossfade_seconds=0)))
    np.testing.assert_array_equal(piece, np.concatenate([a[5000 : 5000 + HOP], a[:HOP]]))


def test_a_crossfade_is_at_most_one_hop(sounds, table_of, noise):
    source = sounds.add("a.wav", noise(9 * HOP))
    table = table_of([source], [(0, 5000), (0, 0), (0, 9 * HOP)])
    mixer = Mixer(table, sounds.read, RenderSettings(crossfade_seconds=5))
    assert mixer.crossfade_samples == HOP
    assert len(rendered(mixer)) == 3 * HOP
    small = Mixer(table_of([source], [(0, 0)], hop=256), sounds.read)
    assert small.crossfade_samples == 256


# Placement.


def test_centered_placement_begins_half_a_hop_earlier(sounds, table_of, noise):
    samples = noise(9 * HOP)
    source = sounds.add("a.wav", samples)
    settings = RenderSettings(placement=Placement.CENTERED)
    piece = rendered(Mixer(table_of([source], [(0, 3 * HOP)]), sounds.read, settings))
    np.testing.assert_array_equal(piece, samples[3 * HOP - HOP // 2 : 4 * HOP - HOP // 2])


@pytest.mark.parametrize("start", [0, 100, HOP // 2])
def test_centered_placement_is_clamped_at_the_file_s_beginning(sounds, table_of, noise, start):
    samples = noise(9 * HOP)
    source = sounds.add("a.wav", samples)
    settings = RenderSettings(placement=Placement.CENTERED)
    piece = rendered(Mixer(table_of([source], [(0, start)]), sounds.read, settings))
    np.testing.assert_array_equal(piece, samples[:HOP])


# Peak and refusals.


def test_the_peak_is_measured_before_clipping_and_clipping_never_wraps(sounds, table_of):
    loud = np.zeros((2 * HOP, 1), np.float32)
    loud[500], loud[600] = 2.5, -3.25
    source = sounds.add("loud.wav", loud)
    mixer = Mixer(table_of([source], [(0, 0), (0, HOP)]), sounds.read)
    piece = rendered(mixer)
    assert mixer.peak == 3.25
    file = io.BytesIO()
    write_audio(file, piece, 44_100, Encoding.WAV_PCM16)
    file.seek(0)
    written, _ = soundfile.read(file, dtype="int16")
    assert (written[500], written[600]) == (32_767, -32_768)


def test_an_empty_table_is_refused(sounds, table_of):
    with pytest.raises(InvalidInputError, match="0 frames"):
        Mixer(table_of([], []), sounds.read)


def test_a_table_too_short_for_one_sample_of_output_is_refused(sounds, table_of, noise):
    source = sounds.add("a.wav", noise(10))
    with pytest.raises(InvalidInputError, match="nothing to render"):
        Mixer(
            table_of([source], [(0, 0)], hop=1), sounds.read, RenderSettings(sample_rate_hertz=8000)
        )


@pytest.mark.parametrize("field", ["sample_rate_hertz", "channel_count", "crossfade_seconds"])
def test_settings_that_cannot_be_are_refused(field):
    with pytest.raises(InvalidInputError):
        RenderSettings(**{field: -1})
