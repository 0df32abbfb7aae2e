"""What strangers upload as sound: no content may do more than be refused by its name."""

import io
import os
import random
import socket
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from services.audio import reading
from services.audio.decoding import Limits
from services.audio.plain_wav import PlainWav
from services.audio.reading import open_audio, read_audio
from services.errors import UnreadableAudioError
from tests.security.sounds import NOISE, encoded, refusal

EXOTIC = ["W64", "AU", "RAW", "PAF", "SVX", "NIST", "VOC", "IRCAM", "MAT4", "MAT5", "PVF", "XI",
          "HTK", "SDS", "AVR", "SD2", "CAF", "WVE", "MPC2K"]  # fmt: skip


@pytest.mark.parametrize("container", EXOTIC)
def test_exotic_formats_never_reach_a_parser(
    container: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "wren.wav"
    subtype = {"XI": "DPCM_16", "WVE": "ALAW"}.get(container, "PCM_16")
    samples = NOISE[:, :1]
    try:
        soundfile.write(file, samples, 8_000, format=container, subtype=subtype)
    except soundfile.SoundFileError:
        pytest.skip(f"this libsndfile does not write {container}")
    monkeypatch.setattr(reading, "decoded", lambda *_, **__: pytest.fail("it was opened"))

    with pytest.raises(UnreadableAudioError, match=r"^wren.wav cannot be decoded: it is neither"):
        read_audio(file, name="wren.wav")


@pytest.mark.parametrize("container", ["WAV", "AIFF", "FLAC", "OGG", "MP3"])
@pytest.mark.parametrize("channels", [1, 2])
def test_channels_are_told_without_a_decoder(container: str, channels: int) -> None:
    content = encoded(container, None, NOISE[:, :channels])
    tag = b"ID3\x04\0\0\0\0\0\x0a" + b"\0" * 10

    assert reading.channel_count_of(content) == channels
    assert reading.channel_count_of(tag + content) == channels
    for end in range(60):
        assert reading.channel_count_of(content[:end]) in {None, channels}


@pytest.mark.parametrize("subtype", ["IMA_ADPCM", "MS_ADPCM", "GSM610", "G721_32"])
def test_exotic_encodings_are_refused(subtype: str) -> None:
    with pytest.raises(UnreadableAudioError, match=f"WAV of {subtype} is not read here"):
        read_audio(io.BytesIO(encoded("WAV", subtype, NOISE[:, :1])), name="wren.wav")


def test_tags_of_mp3_hide_nothing_exotic() -> None:
    tag = b"ID3\x04\0\0\0\0\0\x0a" + b"\0" * 10
    mp3, exotic = encoded("MP3"), encoded("AU")
    assert read_audio(io.BytesIO(tag + mp3), name="wren.mp3").frame_count
    for content in (tag + exotic, tag * 9 + mp3, tag[:8], tag, b"ID3\x04\0\0\x7f\x7f\x7f\x7f"):
        with pytest.raises(UnreadableAudioError, match="neither"):
            read_audio(io.BytesIO(content), name="wren.mp3")


@pytest.mark.parametrize(
    ("at", "value", "reason"),
    [
        (22, struct.pack("<H", 1_000), "channels"),
        (22, struct.pack("<H", 0), "wren.wav"),
        (24, struct.pack("<I", 2**31), "claims a rate"),
        (24, struct.pack("<I", 2**32 - 1), "wren.wav"),
        (24, struct.pack("<I", 0), "wren.wav"),
        (34, struct.pack("<H", 65_535), "wren.wav"),
        (40, struct.pack("<I", 2**31), "claims 2147483648 bytes"),
    ],
)
def test_headers_that_lie_are_refused(at: int, value: bytes, reason: str) -> None:
    wav = bytearray(encoded("WAV", "PCM_16"))
    wav[at : at + len(value)] = value
    with pytest.raises(UnreadableAudioError, match=reason):
        read_audio(io.BytesIO(bytes(wav)), name="wren.wav")


@pytest.mark.parametrize(
    ("container", "order"), [("WAV", "<"), ("RF64", "<"), ("AIFF", ">"), ("WAVEX", "<")]
)
def test_chunks_without_end_are_not_walked(container: str, order: str) -> None:
    content = encoded(container, "PCM_16")

    def among(chunks: int) -> io.BytesIO:
        return io.BytesIO(
            content[:12] + struct.pack(f"{order}4sI", b"junk", 0) * chunks + content[12:]
        )

    class Counting(io.BytesIO):
        seeks = 0

        def seek(self, *place: int) -> int:
            self.seeks += 1
            return super().seek(*place)

    many = Counting(among(300_000).getvalue())
    with pytest.raises(UnreadableAudioError, match=r"^wren\.wav holds more than 1000 chunks"):
        read_audio(many, name="wren.wav")
    assert many.seeks < 1_100
    if container != "RF64":  # whose sizes come first
        assert read_audio(among(990), name="wren.wav").frame_count == len(NOISE)


def test_hours_of_silence_in_kilobytes_cost_seconds_at_most() -> None:
    file = io.BytesIO()
    silence = np.zeros((44_100 * 60, 2), np.int16)
    with soundfile.SoundFile(file, "w", 44_100, 2, "PCM_16", format="FLAC") as written:
        for _ in range(10):
            written.write(silence)
    bomb = file.getvalue()
    assert len(bomb) < 200_000  # 200 MB as float32

    with open_audio(io.BytesIO(bomb), name="hush.flac") as stream:
        assert sum(map(len, stream.blocks())) == 10 * len(silence)
    assert "takes longer" in refusal(bomb, Limits(base_seconds=0, bytes_a_second=10**9))


def test_pipes_and_devices_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "wren.wav")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.wav"))
        for path in (tmp_path / "wren.wav", tmp_path / "socket.wav", Path("/dev/zero")):
            with pytest.raises(UnreadableAudioError, match="cannot be opened"):
                read_audio(path, name="wren.wav")


def corpus() -> list[tuple[str, bytes]]:
    """Some of everything that is read, each mutated some dozens of times; always the same."""
    chance = random.Random(7)  # noqa: S311 - no secret
    seeds = {
        "flac": encoded("FLAC"),
        "ogg": encoded("OGG", "VORBIS"),
        "opus": encoded("OGG", "OPUS"),
        "mp3": encoded("MP3"),
        "aiff": encoded("AIFF"),
        "wav": encoded("WAV", "PCM_16"),
        "wavex": encoded("WAVEX", "PCM_24"),
        "float.wav": encoded("WAV", "FLOAT"),
    }
    files = []
    for name, content in seeds.items():
        for number in range(30):
            mutated = bytearray(content)
            for _ in range(chance.choice([1, 3, 30])):
                place = chance.randrange(chance.choice([64, len(mutated)]))
                mutated[place] = chance.choice([0, 255, 127, 128, chance.randrange(256)])
            cut = len(mutated) if number % 3 else chance.randrange(len(mutated))
            files.append((f"{number}.{name}", bytes(mutated[:cut])))
    return files


def test_mutated_files_give_finite_sound_or_a_refusal() -> None:
    read, culprits = 0, set()
    for name, content in corpus():
        try:
            sound = read_audio(io.BytesIO(content), name=name)
        except UnreadableAudioError as error:
            culprits.add(error.culprit == name)
        else:
            read += 1
            assert np.isfinite(sound.samples).all()
    assert read > 20
    assert culprits == {True}


def test_what_numpy_reads_of_mutated_wavs_is_what_libsndfile_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def outcome(content: bytes) -> tuple[object, ...]:
        try:
            sound = read_audio(io.BytesIO(content), name="x")
        except UnreadableAudioError:
            return ("refused",)
        return sound.sample_rate_hertz, sound.samples.shape, sound.samples.tobytes()

    def never(*_: object) -> None:
        raise ValueError

    subtypes = ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")
    contents = [encoded("WAV", subtype) for subtype in subtypes]
    contents += [content for name, content in corpus() if name.endswith(".wav")]
    ours = [outcome(content) for content in contents]
    monkeypatch.setattr(PlainWav, "__init__", never)
    theirs = [outcome(content) for content in contents]
    # It also reads past chunks that libsndfile takes offence at.
    for one, other in zip(ours, theirs, strict=True):
        assert other in {one, ("refused",)}
    assert sum(len(one) > 1 for one in ours) > len(subtypes)
