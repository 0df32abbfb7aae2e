import io

import numpy as np
import pytest
from matplotlib.image import imread

from services.playback.spectrogram import BANDS, MAX_COLUMNS, Spectrogram

RATE = 44_100


def drawn(samples, rate=RATE, block=16_384):
    spectrogram = Spectrogram(rate, len(samples))
    for start in range(0, len(samples), block):
        spectrogram.add(samples[start : start + block])
    return spectrogram, spectrogram.png()


def tone(hertz, seconds=2.0, rate=RATE):
    time = np.arange(int(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * hertz * time)).astype(np.float32)[:, np.newaxis]


@pytest.mark.parametrize("hertz", [110, 440, 5_000, 15_000])
def test_a_tone_is_a_line_at_its_frequency(hertz):
    spectrogram, _ = drawn(tone(hertz))
    level = spectrogram._power.mean(axis=1)
    band = int(level.argmax())
    assert spectrogram._edges[band] / 1.1 < hertz < spectrogram._edges[band + 1] * 1.1


def test_a_click_is_a_line_at_its_moment():
    samples = np.zeros((5 * RATE, 1), np.float32)
    samples[3 * RATE] = 1
    spectrogram, _ = drawn(samples)
    level = spectrogram._power.sum(axis=0)
    assert abs(level.argmax() / len(level) * 5 - 3) < 0.05


def test_the_picture_does_not_depend_on_the_size_of_blocks():
    samples = np.random.default_rng(0).normal(0, 0.1, (3 * RATE + 77, 2)).astype(np.float32)
    one, _ = drawn(samples, block=16_384)
    other, _ = drawn(samples, block=1_000)
    np.testing.assert_allclose(one._power, other._power, rtol=1e-4)
    np.testing.assert_array_equal(one._windows_in, other._windows_in)


def test_the_same_sound_gives_the_same_bytes_without_date_or_version():
    samples = tone(440)
    _, one = drawn(samples)
    _, other = drawn(samples)
    assert one == other
    assert one.startswith(b"\x89PNG")
    assert not any(chunk in one for chunk in (b"tEXt", b"tIME", b"iTXt"))


@pytest.mark.parametrize(
    ("count", "rate"), [(1, 44_100), (511, 44_100), (512, 8_000), (4096, 8_000), (44_100, 96_000)]
)
def test_sounds_of_any_length_fill_every_column(count, rate):
    samples = np.random.default_rng(0).normal(0, 0.1, (count, 1)).astype(np.float32)
    spectrogram = Spectrogram(rate, count)
    spectrogram.add(samples)
    picture = imread(io.BytesIO(spectrogram.png()))
    assert (spectrogram._windows_in > 0).all()
    assert picture.shape[0] > BANDS


def test_silence_is_drawn_dark():
    _, png = drawn(np.zeros((RATE, 1), np.float32))
    picture = imread(io.BytesIO(png))
    height, width = picture.shape[:2]
    middle = picture[height // 3 : height // 2, width // 3 : width // 2, :3]
    assert middle.max() < 0.1


def test_a_long_sound_makes_no_larger_picture():
    spectrogram = Spectrogram(RATE, 3600 * RATE)
    assert spectrogram._power.shape == (BANDS, MAX_COLUMNS)
