"""What strangers upload as sound: no content may do more than be refused by its name."""

import io
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from services.audio import decoder, decoding, reading
from services.audio.decoding import Decoders, Limits, decoded
from services.audio.plain_wav import PlainWav
from services.audio.reading import open_audio, read_audio
from services.errors import UnavailableError, UnreadableAudioError

NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, (3_000, 2))
# A decoder whose fork, once confined, does this with the file.
PROGRAM = """
import _thread, ctypes, importlib.util, os, signal, socket, sys
spec = importlib.util.spec_from_file_location("decoder", {decoder!r})
decoder = importlib.util.module_from_spec(spec)
spec.loader.exec_module(decoder)
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *arguments):
    if getattr(libc, name)(*arguments) == -1:
        raise OSError(ctypes.get_errno(), name)
def pause(seconds):
    lock = _thread.allocate_lock()
    with lock:
        lock.acquire(timeout=seconds)
def work(sound, samples, max_channels):
    first = os.read(sound, 100)
    if b"good" in first:
        decoder._write(samples, decoder.HEADER.pack(0, b"WAV", b"PCM_16", 0, 44100, 1))
        decoder._write(samples, decoder.BLOCK.pack(0, 0))
        return
{work}
decoder.main(work)
"""


def encoded(container: str, subtype: str | None = None, samples: np.ndarray = NOISE) -> bytes:
    file = io.BytesIO()
    rate = 48_000 if subtype == "OPUS" else 44_100
    soundfile.write(file, samples, rate, format=container, subtype=subtype)
    return file.getvalue()


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Puts a decoder that does this in the place of the real one."""
    started = []

    def put(*work: str) -> Decoders:
        path = tmp_path / "program.py"
        lines = "\n".join(f"    {line}" for line in work)
        path.write_text(PROGRAM.format(decoder=decoding.decoder.__file__, work=lines))
        started.append(Decoders(path))
        monkeypatch.setattr(decoding, "DECODERS", started[-1])
        return started[-1]

    yield put
    for one in started:
        one.close()


def refusal(content: bytes, limits: Limits | None = None) -> str:
    """Why the decoder refuses it."""
    file = io.BytesIO(content)

    def read_all() -> None:
        with decoded(file, name="wren.flac", max_channels=64, limits=limits) as sound:
            while len(sound.read()):
                pass

    with pytest.raises(UnreadableAudioError) as caught:
        read_all()
    assert caught.value.culprit == "wren.flac"
    assert caught.value.message.startswith("wren.flac ")
    return caught.value.message


def running(name: Path) -> list[int]:
    """The processes that have the file's name in their command."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += [int(path.parent.name)] * (str(name).encode() in path.read_bytes())
        except OSError:
            continue
    return found


def good_one_passes() -> None:
    with decoded(io.BytesIO(b"good"), name="good", max_channels=64) as sound:
        assert not len(sound.read())


@pytest.mark.parametrize(
    ("work", "reason"),
    [
        (("ctypes.string_at(0)",), "the decoder crashed on it (SIGSEGV)"),
        (("os.abort()",), "the decoder crashed on it (SIG"),
        (("while True: pass",), "it takes longer than a sound of its size may"),
        (("pause(600)",), "the decoder hangs"),
        (("while True:", "    os.write(samples, b'x')", "    pause(0.3)"), "the decoder hangs"),
        (("os._exit(7)",), "the decoder crashed on it (code 7)"),
        (("1 / 0",), "the decoder crashed on it (code 1)"),
        (("x = bytearray(2**40)",), "it takes more memory than a sound may"),
        (("x = [bytearray(2**20) for _ in range(10**6)]",), "it takes more memory"),
        (
            (
                "decoder._write(samples, decoder.HEADER.pack(0, b'WAV', b'PCM_16', 9, 44100, 1))",
                "decoder._write(samples, decoder.BLOCK.pack(0, 2**31 - 1))",
            ),
            "the decoder answers nonsense",
        ),
        (
            (
                "decoder._write(samples, decoder.HEADER.pack(0, b'FLAC', b'PCM_16', 9, 44100, 1))",
                "while True: decoder._write(samples, decoder.BLOCK.pack(0, 1) + bytes(4))",
            ),
            "the decoder answers nonsense",
        ),
    ],
)
def test_a_decoder_that_goes_wrong_is_an_error_of_its_file_and_the_rest_goes_on(
    program: object, work: tuple[str, ...], reason: str
) -> None:
    program(*work)  # type: ignore[operator]
    limits = Limits(base_seconds=1, silence_seconds=1.5 if "pause" in work[-1] else 60.0)

    assert reason in refusal(b"bad", limits)
    good_one_passes()


@pytest.mark.parametrize(
    "work",
    [
        "open('/etc/passwd')",
        "open('/tmp/x', 'w')",
        "socket.socket()",
        "os.pipe()",
        "os.dup(0)",
        "os.write(0, b'x')",
        "os.dup2(0, 5)",
        "os.fork()",
    ],
)
def test_a_decoder_that_was_taken_over_can_open_nothing(program: object, work: str) -> None:
    program("try:", f"    {work}", "except Exception: os._exit(9)", "os._exit(8)")  # type: ignore[operator]

    assert "(code 9)" in refusal(b"bad")


@pytest.mark.skipif(not decoder.can_filter(), reason="needs Linux with seccomp")
@pytest.mark.parametrize(
    "work",
    [
        "os.rename('{0}', '{0}.new')",
        "os.unlink('{0}')",
        "os.truncate('{0}', 0)",
        "os.mkdir('{0}.new')",
        "os.rmdir('{1}')",
        "os.link('{0}', '{0}.new')",
        "os.symlink('{0}', '{0}.new')",
        "os.mkfifo('{0}.new')",
        "os.chmod('{0}', 0)",
        "os.utime('{0}')",
        "os.setxattr('{0}', 'user.x', b'x')",
        "os.chdir('{1}')",
        "os.listdir('{1}')",
        "os.kill(os.getppid(), 0)",
        "os.kill(os.getpid(), 0)",
        "os.setsid()",
        "os.sched_setaffinity(0, [0])",
        "os.execv(sys.executable, [sys.executable, '-c', ''])",
        "os.memfd_create('x')",
        "call('ptrace', 16, os.getppid(), None, None)",
        "call('process_vm_readv', os.getppid(), None, 0, None, 0, 0)",
        "call('syscall', 425, 1, None)",
    ],
)
def test_a_decoder_that_was_taken_over_can_change_nothing_and_reach_nobody(
    program: object, tmp_path: Path, work: str
) -> None:
    victim, folder = tmp_path / "victim", tmp_path / "folder"
    victim.write_text("content")
    folder.mkdir()
    attack = work.format(victim, folder)
    program(  # type: ignore[operator]
        "try:",
        f"    {attack}",
        "except PermissionError: os._exit(9)",
        "os._exit(8)",
    )
    before = victim.stat()

    assert "(code 9)" in refusal(b"bad")
    assert victim.stat() == before
    assert {path.name for path in tmp_path.iterdir()} == {"victim", "folder", "program.py"}


def test_without_seccomp_the_log_says_so_and_sounds_are_read(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(decoder, "can_filter", lambda: False)
    monkeypatch.setattr(decoding, "DECODERS", Decoders())
    with caplog.at_level("INFO"):
        assert read_audio(io.BytesIO(encoded("FLAC")), name="x").frame_count == len(NOISE)
        assert read_audio(io.BytesIO(encoded("FLAC")), name="x").frame_count == len(NOISE)
    decoding.DECODERS.close()
    assert [record.message for record in caplog.records] == [
        "no seccomp here: decoders of sounds are held by their limits alone"
    ]


def test_a_decoder_has_no_environment_and_no_descriptors_but_file_and_pipe(
    program: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "s3cr3t")
    program(  # type: ignore[operator]
        "held = [n for n in range(200) if n != 2 and not _closed(n)]",
        "os._exit(40 + len(held) + 100 * ('s3cr3t' in str(os.environb)))",
    )
    path = Path(decoding.DECODERS._program)
    closed = "def _closed(n):\n    try: os.fstat(n)\n    except OSError: return True\n"
    path.write_text(path.read_text().replace("def work", f"{closed}def work"))

    assert "(code 42)" in refusal(b"bad")


def test_a_decoder_that_was_killed_is_nobodys_fault(program: object) -> None:
    program("decoder._write(samples, decoder.HEADER.pack(0, b'', b'', 0, 0, 0))", "pause(600)")  # type: ignore[operator]
    with decoded(io.BytesIO(b"bad"), name="wren.flac", max_channels=64) as sound:
        starter = decoding.DECODERS._process
        assert starter
        (fork,) = set(running(decoding.DECODERS._program)) - {starter.pid}
        os.kill(fork, signal.SIGKILL)
        with pytest.raises(UnavailableError, match="try again"):
            sound.read()


def test_the_process_that_forks_may_die_and_is_started_anew() -> None:
    flac = encoded("FLAC")
    read_audio(io.BytesIO(flac), name="wren.flac")
    process = decoding.DECODERS._process
    assert process
    os.kill(process.pid, signal.SIGKILL)
    process.wait()

    assert read_audio(io.BytesIO(flac), name="wren.flac").frame_count == len(NOISE)


def test_forks_end_with_who_waits_for_them_and_with_a_parent_that_is_killed(
    program: object, tmp_path: Path
) -> None:
    def until(count: int) -> None:
        while len(running(tmp_path / "program.py")) != count:
            time.sleep(0.02)

    program("pause(600)")  # type: ignore[operator]
    with (
        pytest.raises(UnreadableAudioError),
        decoded(io.BytesIO(b"bad"), name="x", max_channels=1, limits=Limits(silence_seconds=0.2)),
    ):
        pass
    until(1)  # the process that forks
    decoding.DECODERS.close()
    until(0)

    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import io, sys; from pathlib import Path; from services.audio import decoding\n"
            "decoding.DECODERS = decoding.Decoders(Path(sys.argv[1]))\n"
            "with decoding.decoded(io.BytesIO(b'bad'), name='x', max_channels=1): pass",
            str(tmp_path / "program.py"),
        ]
    )
    until(3)
    parent.kill()
    parent.wait()
    until(0)


def test_many_threads_decode_at_once() -> None:
    flac, results = encoded("FLAC"), []
    threads = [
        threading.Thread(
            target=lambda: results.append(read_audio(io.BytesIO(flac), name="x").frame_count)
        )
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [len(NOISE)] * 8


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
