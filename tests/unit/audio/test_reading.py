import io
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from services.audio import reading
from services.audio.reading import channel_count_of, is_audio_name, open_audio, read_audio
from services.errors import UnreadableAudioError

RATE = 44_100
NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, (4_000, 2))


def encoded(
    samples: np.ndarray = NOISE,
    container: str = "WAV",
    subtype: str | None = "PCM_16",
    rate: int = RATE,
) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=container, subtype=subtype)
    return file.getvalue()


def with_data_size(wav: bytes, size: int) -> bytes:
    at = wav.index(b"data") + 4
    return wav[:at] + struct.pack("<I", size) + wav[at + 4 :]


def with_flac_length(flac: bytes, frames: int) -> bytes:
    """The stream information's last 36 bits before the MD5 count the samples."""
    at = 8 + 13
    high = (flac[at] & 0xF0) | (frames >> 32)
    return flac[:at] + bytes([high]) + struct.pack(">I", frames & 0xFFFFFFFF) + flac[at + 5 :]


def constant(value: float, subtype: str) -> bytes:
    samples = np.zeros((100, 1))
    samples[50] = value
    return encoded(samples, subtype=subtype)


@pytest.mark.parametrize(
    ("container", "subtype", "tolerance"),
    [
        ("WAV", "PCM_U8", 1 / 127),
        ("WAV", "PCM_16", 1 / 32767),
        ("WAV", "PCM_24", 1e-6),
        ("WAV", "PCM_32", 1e-6),
        ("WAV", "FLOAT", 1e-7),
        ("WAV", "DOUBLE", 1e-7),
        ("WAVEX", "PCM_16", 1 / 32767),
        ("RF64", "PCM_16", 1 / 32767),
        ("AIFF", "PCM_24", 1e-6),
        ("FLAC", "PCM_16", 1 / 32767),
        ("FLAC", "PCM_24", 1e-6),
    ],
)
def test_lossless_files_give_their_samples(container: str, subtype: str, tolerance: float) -> None:
    sound = read_audio(io.BytesIO(encoded(NOISE, container, subtype)), name="noise")

    assert sound.samples.dtype == np.float32
    assert sound.samples.shape == NOISE.shape
    assert sound.sample_rate_hertz == RATE
    assert np.abs(sound.samples - NOISE).max() <= tolerance


@pytest.mark.parametrize(("container", "subtype"), [("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III")])
def test_lossy_files_sound_alike(container: str, subtype: str) -> None:
    seconds = np.arange(5 * RATE) / RATE
    tone = 0.5 * np.sin(2 * np.pi * 440 * seconds)[:, None]

    sound = read_audio(io.BytesIO(encoded(tone, container, subtype)), name="tone")

    assert sound.samples.shape == tone.shape
    assert np.abs(sound.samples - tone)[1_000:-1_000].max() < 0.02


@pytest.mark.parametrize("channels", [1, 3, 64])
@pytest.mark.parametrize("rate", [8_000, 22_050, 96_000, 192_000])
def test_any_rate_and_up_to_64_channels_can_be_read(channels: int, rate: int) -> None:
    samples = np.random.default_rng(channels).uniform(-1, 1, (100, channels))

    sound = read_audio(io.BytesIO(encoded(samples, rate=rate)), name="many")

    assert (sound.frame_count, sound.channel_count) == (100, channels)
    assert sound.sample_rate_hertz == rate


def test_sounds_longer_than_a_block_are_read_whole() -> None:
    samples = np.random.default_rng(1).integers(-(2**15), 2**15, (200_001, 1)) / 2**15

    sound = read_audio(io.BytesIO(encoded(samples)), name="long")

    assert np.array_equal(sound.samples, samples)


@pytest.mark.parametrize("container", ["WAV", "FLAC", "OGG", "MP3"])
def test_blocks_are_the_whole_sound_in_the_memory_of_one(container: str) -> None:
    content = encoded(np.random.default_rng(2).uniform(-1, 1, (1_000_000, 2)), container, None)
    whole = read_audio(io.BytesIO(content), name="long").samples
    position = 0
    tracemalloc.start()
    try:
        with open_audio(io.BytesIO(content), name="long") as stream:
            assert (stream.sample_rate_hertz, stream.channel_count) == (RATE, 2)
            for block in stream.blocks():
                assert np.array_equal(block, whole[position : position + len(block)])
                position += len(block)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert position == len(whole)
    assert peak - len(content) < 2_500_000  # of 8 000 000 bytes in all


def test_blocks_may_hold_more_than_is_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_SAMPLES", 1_000)
    with pytest.raises(UnreadableAudioError, match="more than 1000 samples"):
        read_audio(io.BytesIO(encoded()), name="long")

    with open_audio(io.BytesIO(encoded()), name="long") as stream:
        assert sum(map(len, stream.blocks())) == len(NOISE)


def test_int16_samples_are_divided_by_32768() -> None:
    integers = np.array([[-32768], [-1], [0], [1], [32767]], dtype=np.int16)

    sound = read_audio(io.BytesIO(encoded(integers)), name="int16")

    assert np.array_equal(sound.samples, integers / 32768)


def test_chunks_before_the_samples_are_passed_over_whatever_their_length() -> None:
    wav = encoded()
    odd = b"LIST" + struct.pack("<I", 5) + b"INFOx\0"
    at = wav.index(b"data")

    sound = read_audio(io.BytesIO(wav[:at] + odd + wav[at:]), name="tagged.wav")

    assert sound.frame_count == len(NOISE)


def test_content_decides_not_the_extension(tmp_path: Path) -> None:
    for name in ("sound.raw", "sound", "sound.txt", "Größe 2 .mp3"):
        path = tmp_path / name
        path.write_bytes(encoded())

        assert read_audio(path, name=name).frame_count == len(NOISE)


def test_an_open_file_is_read_from_its_beginning_and_left_open() -> None:
    file = io.BytesIO(encoded())
    file.seek(1_000)

    read_audio(file, name="noise")
    again = read_audio(file, name="noise")

    assert not file.closed
    assert again.frame_count == len(NOISE)


def test_flac_without_a_length_is_read_to_its_end() -> None:
    flac = with_flac_length(encoded(container="FLAC"), 0)

    assert read_audio(io.BytesIO(flac), name="piped.flac").frame_count == len(NOISE)


BAD_FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "is empty"),
    "text": (lambda: b"These are the words of a song.\n" * 50, "cannot be decoded"),
    "one byte": (lambda: b"R", "cannot be decoded"),
    "riff without samples": (lambda: encoded()[:36], "ends before its samples begin"),
    "half a chunk header": (lambda: encoded()[:40], "ends before its samples begin"),
    "truncated wav": (lambda: encoded()[:8_000], "is truncated"),
    "wav short of one byte": (lambda: encoded()[:-1], "is truncated"),
    "truncated rf64": (lambda: encoded(container="RF64")[:8_000], "is truncated"),
    "truncated aiff": (lambda: encoded(container="AIFF")[:8_000], "is truncated"),
    "truncated flac": (lambda: encoded(container="FLAC")[:8_000], "is damaged"),
    "mp3 of headers alone": (lambda: b"\xff\xfb\x90\x64" * 3, "is damaged"),
    "unknown codec": (
        lambda: encoded().replace(b"fmt \x10\0\0\0\x01", b"fmt \x10\0\0\0\x0b"),
        "cannot be decoded",
    ),
    "header of 2 GB": (lambda: with_data_size(encoded(), 2**31), "claims 2147483648 bytes"),
    "header of 4 GB": (lambda: with_data_size(encoded(), 2**32 - 1), "is truncated"),
    "flac header of hours": (
        lambda: with_flac_length(encoded(container="FLAC"), 2**35),
        "claims more than 536870912 samples",
    ),
    "nan": (lambda: constant(np.nan, "FLOAT"), "not finite"),
    "infinity": (lambda: constant(-np.inf, "FLOAT"), "not finite"),
    "double beyond float": (lambda: constant(1e300, "DOUBLE"), "not finite"),
    "no frames": (lambda: encoded(np.zeros((0, 2))), "holds no samples"),
    "65 channels": (lambda: encoded(np.zeros((10, 65))), "65 channels"),
    "1 Hz": (lambda: encoded(rate=1), "rate of 1 Hz"),
}


@pytest.mark.parametrize("case", BAD_FILES)
@pytest.mark.parametrize("through", ["path", "file"])
def test_bad_files_are_refused_by_name_with_the_reason(
    case: str, through: str, tmp_path: Path
) -> None:
    make, reason = BAD_FILES[case]
    path = tmp_path / "some sound.wav"
    path.write_bytes(make())

    with pytest.raises(UnreadableAudioError, match=reason) as caught:
        read_audio(path if through == "path" else io.BytesIO(make()), name="my bird.wav")

    with (
        pytest.raises(UnreadableAudioError, match=reason) as in_blocks,
        open_audio(
            path if through == "path" else io.BytesIO(make()),
            name="my bird.wav",
            max_samples=reading.MAX_SAMPLES,
        ) as stream,
    ):
        list(stream.blocks())

    assert caught.value.culprit == "my bird.wav"
    assert caught.value.message.startswith("my bird.wav ")
    assert str(tmp_path) not in caught.value.message
    assert in_blocks.value.message == caught.value.message


@pytest.mark.parametrize("case", ["header of 2 GB", "header of 4 GB", "flac header of hours"])
def test_what_a_header_claims_is_not_allocated(case: str) -> None:
    content = BAD_FILES[case][0]()
    tracemalloc.start()
    try:
        with pytest.raises(UnreadableAudioError):
            read_audio(io.BytesIO(content), name=case)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 * 1024 * 1024


@pytest.mark.parametrize("has_length", [True, False])
def test_silence_that_decodes_to_too_much_is_refused_before_it_is_all_in_memory(
    has_length: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = 400_000
    monkeypatch.setattr(reading, "MAX_SAMPLES", limit)
    whole = encoded(np.zeros((limit // 2, 2)), container="FLAC")
    assert read_audio(io.BytesIO(whole), name="whole.flac").frame_count == limit // 2

    flac = encoded(np.zeros((4_000_000, 2)), container="FLAC")
    if not has_length:
        flac = with_flac_length(flac, 0)
    tracemalloc.start()
    try:
        with pytest.raises(UnreadableAudioError, match=rf"^hush.* more than {limit} samples"):
            read_audio(io.BytesIO(flac), name="hush.flac")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4_000_000  # of 32 000 000 bytes in all


def test_missing_files_and_folders_are_refused_by_name(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.wav", tmp_path):
        with pytest.raises(UnreadableAudioError, match="bird cannot be opened"):
            read_audio(path, name="bird")


@settings(max_examples=300, deadline=None)
@given(
    container=st.sampled_from(["WAV", "RF64", "AIFF", "FLAC"]),
    damage=st.lists(st.tuples(st.integers(0, 99), st.integers(0, 255)), min_size=1, max_size=4),
    end=st.integers(0, 600),
)
def test_damaged_headers_give_finite_sound_or_a_refusal(
    container: str, damage: list[tuple[int, int]], end: int
) -> None:
    content = bytearray(encoded(NOISE[:100], container))
    for position, octet in damage:
        content[position] = octet

    try:
        sound = read_audio(io.BytesIO(bytes(content[:end])), name="damaged")
    except UnreadableAudioError as error:
        culprit = error.culprit
    else:
        culprit = sound.name
        assert np.isfinite(sound.samples).all()
        assert sound.frame_count
    assert culprit == "damaged"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("wren.wav", True),
        ("WREN.WAV", True),
        ("a/b c/wren.Flac", True),
        ("wren.mp3", True),
        ("ö.ogg", True),
        ("wren.wav.json", False),
        ("wav", False),
        (".wav", False),
        ("notes.txt", False),
        ("", False),
    ],
)
def test_names_of_sound_are_known_by_their_extension_in_any_case(name: str, expected: bool) -> None:
    assert is_audio_name(name) is expected


@pytest.mark.parametrize("kind", [("WAV", "PCM_24"), ("FLAC", "PCM_16"), ("OGG", "VORBIS")])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_the_beginning_of_a_file_tells_its_channels(kind: tuple[str, str], channels: int) -> None:
    file = io.BytesIO()
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (400_000, channels))
    soundfile.write(file, samples, 44_100, format=kind[0], subtype=kind[1])
    beginning = file.getvalue()[:65_536]
    assert len(beginning) == 65_536
    assert channel_count_of(beginning) == channels


@pytest.mark.parametrize("beginning", [b"", b"RIFF", b"no sound at all" * 100])
def test_what_is_no_sound_has_no_channels(beginning: bytes) -> None:
    assert channel_count_of(beginning) is None
