"""What the mixer does with its sources: any rate, width and length, read once and let go."""

import numpy as np
import pytest

from services.audio.match_table import SourceRef
from services.audio.reading import Sound
from services.audio.resampling import resample
from services.errors import CancelledError, InvalidInputError, UnreadableAudioError
from services.playback.mixer import Mixer, with_channels
from services.playback.segments import RenderSettings

HOP = 1024
FADE = 970  # 22 ms at 44.1 kHz
HALF = FADE // 2


def rendered(mixer, block_frames=16_384):
    return np.concatenate(list(mixer.render(block_frames)))


# Short, foreign and damaged.


def test_a_source_shorter_than_one_hop_is_padded_with_zeros(sounds, table_of, noise):
    samples = noise(300)
    source = sounds.add("a.wav", samples)
    for start in (0, 300):
        piece = rendered(Mixer(table_of([source], [(0, start)]), sounds.read))
        np.testing.assert_array_equal(piece[:300], samples)
        assert (piece[300:] == 0).all()
        assert len(piece) == HOP


def test_a_source_of_another_rate_is_resampled_and_its_positions_scaled(sounds, table_of):
    seconds = np.arange(2 * 22_050) / 22_050
    samples = (0.5 * np.sin(2 * np.pi * (200 + 300 * seconds) * seconds)).astype(np.float32)
    source = sounds.add("half.wav", samples, rate=22_050)
    whole = resample(samples[:, np.newaxis], 22_050, 44_100)
    starts = [40 * HOP, 11 * HOP, 12 * HOP, 70 * HOP]
    piece = rendered(Mixer(table_of([source], [(0, start) for start in starts]), sounds.read))
    assert sounds.opens == {"half.wav": 1}
    for frame, start in enumerate(starts):
        inside = slice(HALF + 1, HOP - HALF - 1)
        np.testing.assert_array_equal(
            piece[frame * HOP : (frame + 1) * HOP][inside], whole[start : start + HOP][inside]
        )


def test_a_file_comes_back_at_its_own_rate_whatever_the_rate_of_the_table(sounds, table_of, noise):
    samples = noise(4 * 22_050)
    source = sounds.add("half.wav", samples, rate=22_050)
    table = table_of([source], [(0, i * HOP) for i in range(100)])
    piece = rendered(Mixer(table, sounds.read, RenderSettings(sample_rate_hertz=22_050)))
    assert len(piece) == 100 * HOP // 2
    np.testing.assert_array_equal(piece, samples[: len(piece)])


@pytest.mark.parametrize("output_rate", [8_000, 22_050, 48_000, 96_000])
def test_frames_at_another_rate_begin_at_the_nearest_sample_and_never_drift(
    sounds, table_of, noise, output_rate
):
    source = sounds.add("a.wav", noise(100 * HOP))
    table = table_of([source], [(0, (i * 37 % 99) * HOP) for i in range(333)])
    mixer = Mixer(table, sounds.read, RenderSettings(sample_rate_hertz=output_rate))
    begins = [segment.output_start_sample for segment in mixer.segments]
    exact = [segment.first_frame * HOP * output_rate / 44_100 for segment in mixer.segments]
    assert np.abs(np.array(begins) - np.array(exact)).max() <= 0.5
    assert len(rendered(mixer)) == mixer.sample_count
    assert abs(mixer.sample_count - 333 * HOP * output_rate / 44_100) <= 0.5


def test_a_piece_has_the_most_channels_of_the_sources_heard(sounds, table_of, noise):
    mono, stereo = noise(4 * HOP, 1), noise(4 * HOP, 2, seed=1)
    sources = [
        sounds.add("mono.wav", mono),
        sounds.add("stereo.wav", stereo),
        sounds.add("unheard.wav", noise(4 * HOP, 6)),
    ]
    mixer = Mixer(table_of(sources, [(0, 0), (1, HOP)]), sounds.read)
    piece = rendered(mixer)
    assert piece.shape == (2 * HOP, mixer.channel_count) == (2 * HOP, 2)
    np.testing.assert_array_equal(piece[: HOP - HALF], np.repeat(mono[: HOP - HALF], 2, axis=1))
    np.testing.assert_array_equal(piece[HOP + HALF :], stereo[HOP + HALF : 2 * HOP])
    assert sounds.opens == {"mono.wav": 1, "stereo.wav": 1}


def test_channels_wrap_round():
    frames = np.array([[1, 2, 3, 4, 5, 6]], np.float32)
    assert with_channels(frames, 1).tolist() == [[3.5]]
    assert with_channels(frames, 2).tolist() == [[3, 4]]
    assert with_channels(frames, 4).tolist() == [[3, 4, 3, 4]]
    assert with_channels(frames[:, :1], 3).tolist() == [[1, 1, 1]]
    assert with_channels(frames[:, :2], 5).tolist() == [[1, 2, 1, 2, 1]]
    assert with_channels(frames, 6) is frames


def test_sixty_four_channels_are_rendered(sounds, table_of, noise):
    samples = noise(2 * HOP, 64)
    source = sounds.add("many.wav", samples)
    np.testing.assert_array_equal(
        rendered(Mixer(table_of([source], [(0, 0), (0, HOP)]), sounds.read)), samples
    )


@pytest.mark.parametrize(
    ("starts", "frame"),
    [([0, 5 * HOP, 9 * HOP + 301], 2), ([7 * HOP, 8 * HOP, 9 * HOP, 10 * HOP, 11 * HOP], 3)],
)
def test_a_start_beyond_the_file_s_end_is_refused_with_source_and_frame(
    sounds, table_of, noise, starts, frame
):
    source = sounds.add("a bird.wav", noise(9 * HOP + 300))
    mixer = Mixer(table_of([source], [(0, start) for start in starts]), sounds.read)
    with pytest.raises(InvalidInputError, match=rf"a bird\.wav: frame {frame} ") as caught:
        rendered(mixer)
    assert caught.value.culprit == "a bird.wav"


def test_a_source_that_is_no_sound_is_refused_by_its_name(tmp_path, sounds, table_of):
    (tmp_path / "text.wav").write_text("not a sound")
    source = SourceRef("text.wav", "0" * 64, 11, "audio/wav")
    with pytest.raises(UnreadableAudioError, match=r"text\.wav"):
        rendered(Mixer(table_of([source], [(0, 0)]), sounds.read))


# Memory and cancellation.


def test_a_source_that_fell_out_of_the_cache_is_opened_again_and_sounds_the_same(
    sounds, table_of, noise
):
    sources = [sounds.add(f"{i}.wav", noise(8 * HOP, seed=i)) for i in range(3)]
    matches = [(i % 3, (i % 7) * HOP) for i in range(12)]
    table = table_of(sources, matches)
    settings = RenderSettings(channel_count=1)
    expected = rendered(Mixer(table, sounds.read, settings))
    sounds.opens.clear()
    tight = rendered(Mixer(table, sounds.read, settings, cache_bytes=2 * 8 * HOP * 4))
    assert sounds.opens == {"0.wav": 4, "1.wav": 4, "2.wav": 4}
    np.testing.assert_array_equal(tight, expected)


def test_what_is_used_again_stays_in_the_cache(sounds, table_of, noise):
    sources = [sounds.add(f"{i}.wav", noise(8 * HOP, seed=i)) for i in range(3)]
    table = table_of(sources, [(0, 0), (1, 0), (0, 0), (2, 0), (0, 0), (1, 0)])
    mixer = Mixer(table, sounds.read, RenderSettings(channel_count=1), cache_bytes=2 * 8 * HOP * 4)
    rendered(mixer)
    assert sounds.opens == {"0.wav": 1, "1.wav": 2, "2.wav": 1}


def test_sources_are_read_only_when_the_piece_comes_to_them(sounds, table_of, noise):
    sources = [sounds.add(f"{i}.wav", noise(4 * HOP, seed=i)) for i in range(9)]
    table = table_of(sources, [(i, HOP) for i in range(9)])
    blocks = Mixer(table, sounds.read, RenderSettings(channel_count=1)).render(HOP // 2)
    assert not sounds.opens
    next(blocks)
    assert sounds.opens == {"0.wav": 1}


def test_a_checkpoint_ends_the_work(sounds, table_of, noise):
    sources = [sounds.add(f"{i}.wav", noise(4 * HOP, seed=i)) for i in range(9)]

    def checkpoint():
        if len(sounds.opens) == 3:
            raise CancelledError("the caller left")

    mixer = Mixer(table_of(sources, [(i, 0) for i in range(9)]), sounds.read, checkpoint=checkpoint)
    with pytest.raises(CancelledError):
        rendered(mixer)
    assert len(sounds.opens) == 3


def test_a_reader_s_samples_are_left_as_they_are(table_of, noise):
    samples = noise(4 * HOP)
    before = samples.copy()
    table = table_of([SourceRef("a", "0" * 64, 1, "")], [(0, 0), (0, 3 * HOP), (0, 7)])
    for block in Mixer(table, lambda ref: Sound(samples, 44_100, ref.key)).render(100):
        block[:] = 9  # whoever is given a block may keep it and write to it
    np.testing.assert_array_equal(samples, before)


def test_a_checkpoint_ends_the_resampling_of_a_long_source(sounds, table_of, noise):
    source = sounds.add("long.wav", noise(3 * 2**20), rate=22_050)
    calls = 0

    def checkpoint():
        nonlocal calls
        calls += 1
        if calls == 3:
            raise CancelledError("nobody waits")

    mixer = Mixer(table_of([source], [(0, 0)]), sounds.read, checkpoint=checkpoint)
    with pytest.raises(CancelledError):
        list(mixer.render())
    assert not mixer.facts
