"""Decoders that crash, hang or were taken over: an error of one file, and nothing more."""

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.audio import decoder, decoding
from services.audio.decoding import Decoders, Limits, decoded
from services.audio.reading import read_audio
from services.errors import UnavailableError, UnreadableAudioError
from tests.security.sounds import NOISE, encoded, refusal

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
