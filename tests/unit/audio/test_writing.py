import io
import struct
import wave
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from services.audio import writing
from services.audio.reading import read_audio
from services.audio.writing import Encoding, quantized, write_audio
from services.errors import InvalidInputError


def written(samples: np.ndarray, encoding: Encoding, rate: int = 44_100) -> bytes:
    file = io.BytesIO()
    write_audio(file, samples, rate, encoding)
    return file.getvalue()


@pytest.mark.parametrize(
    ("encoding", "bits"),
    [(Encoding.WAV_PCM16, 16), (Encoding.WAV_PCM24, 24), (Encoding.FLAC, 24), (Encoding.FLAC, 16)],
)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), frames=st.integers(1, 200), channels=st.integers(1, 8))
def test_integers_that_were_read_are_written_back_bit_for_bit(
    encoding: Encoding, bits: int, seed: int, frames: int, channels: int
) -> None:
    limit = 2 ** (bits - 1)
    integers = np.random.default_rng(seed).integers(-limit, limit, (frames, channels))
    samples = (integers / limit).astype(np.float32)

    content = written(samples, encoding)

    read, rate = soundfile.read(io.BytesIO(content), dtype="int32", always_2d=True)
    assert np.array_equal(read >> (32 - bits), integers)
    assert rate == 44_100
    assert np.array_equal(read_audio(io.BytesIO(content), name="again").samples, samples)


def test_an_int16_file_is_the_same_file_after_reading_and_writing() -> None:
    original = io.BytesIO()
    integers = np.arange(-32768, 32768).astype(np.int16).reshape(-1, 2)
    soundfile.write(original, integers, 48_000, format="WAV", subtype="PCM_16")

    sound = read_audio(original, name="all")

    assert written(sound.samples, Encoding.WAV_PCM16, 48_000) == original.getvalue()


def test_floats_are_written_as_they_are_even_beyond_full_scale() -> None:
    samples = np.array([[0.1, -3.5], [1e-30, 1.0], [7.0, -0.0]], dtype=np.float32)

    content = written(samples, Encoding.WAV_FLOAT)

    assert read_audio(io.BytesIO(content), name="f").samples.tobytes() == samples.tobytes()
    assert soundfile.info(io.BytesIO(content)).subtype == "FLOAT"


@pytest.mark.parametrize("bits", [16, 24])
def test_what_is_beyond_full_scale_is_clipped_and_does_not_wrap(bits: int) -> None:
    limit = 2 ** (bits - 1)
    samples = np.array([1.0, 1.5, -1.0, -1.5, 1 - 0.25 / limit, 0.4 / limit, 0.6 / limit])

    assert quantized(samples, bits).tolist() == [
        *(limit - 1, limit - 1, -limit, -limit, limit - 1, 0, 1)
    ]


@pytest.mark.parametrize("encoding", Encoding)
def test_the_same_samples_give_the_same_bytes_at_any_time(
    encoding: Encoding, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, (1_001, 1))
    path = tmp_path / f"piece.{encoding.extension}"

    write_audio(path, samples, 22_050, encoding)

    assert path.read_bytes() == written(samples, encoding, 22_050)
    # libsndfile would stamp the time of day into a chunk of this name.
    assert b"PEAK" not in path.read_bytes()
    monkeypatch.setattr(writing, "_BLOCK_FRAMES", 64)
    if encoding is not Encoding.FLAC:  # whose own blocks follow the blocks that it is given
        assert written(samples, encoding, 22_050) == path.read_bytes()


@pytest.mark.parametrize("channels", [1, 2, 3, 64])
def test_the_standard_library_reads_our_wav(channels: int) -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, (101, channels))

    with wave.open(io.BytesIO(written(samples, Encoding.WAV_PCM24, 96_000))) as file:
        assert file.getparams()[:4] == (channels, 3, 96_000, 101)


def test_chunks_of_odd_length_are_padded_and_sizes_are_true() -> None:
    content = written(np.zeros((3, 1)), Encoding.WAV_PCM24)

    assert len(content) % 2 == 0
    assert struct.unpack("<I", content[4:8])[0] == len(content) - 8
    assert struct.unpack("<I", content[40:44])[0] == 9


@pytest.mark.parametrize("encoding", Encoding)
def test_what_cannot_be_sound_is_refused_before_a_byte_is_written(encoding: Encoding) -> None:
    for samples in (np.zeros(10), np.zeros((10, 0)), np.full((10, 1), np.nan)):
        file = io.BytesIO()
        with pytest.raises(InvalidInputError):
            write_audio(file, samples, 44_100, encoding)
        assert not file.getvalue()


def test_flac_refuses_more_channels_than_it_holds() -> None:
    with pytest.raises(InvalidInputError, match="8 channels"):
        written(np.zeros((10, 9)), Encoding.FLAC)


def test_wav_refuses_more_than_four_gibibytes() -> None:
    file = io.BytesIO()
    endless = np.broadcast_to(np.float32(0), (2**28, 4))

    with pytest.raises(InvalidInputError, match="4 GiB"):
        writing.write_wav(file, [endless], endless.shape, 44_100, Encoding.WAV_FLOAT)

    assert not file.getvalue()


def test_a_sound_that_comes_in_blocks_is_the_file_of_the_whole() -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, (1001, 3)).astype(np.float32)
    whole, in_blocks = io.BytesIO(), io.BytesIO()

    write_audio(whole, samples, 8000, Encoding.WAV_PCM24)
    blocks = (samples[start : start + 100] for start in range(0, 1001, 100))
    writing.write_wav(in_blocks, blocks, samples.shape, 8000, Encoding.WAV_PCM24)

    assert in_blocks.getvalue() == whole.getvalue()


@pytest.mark.parametrize(
    "blocks",
    [[np.zeros((9, 1))], [np.zeros((11, 1))], [np.zeros((10, 2))], [np.full((10, 1), np.nan)]],
)
def test_blocks_that_do_not_make_up_the_sound_are_refused(blocks: list[np.ndarray]) -> None:
    with pytest.raises(InvalidInputError):
        writing.write_wav(io.BytesIO(), blocks, (10, 1), 8000)
