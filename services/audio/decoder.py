"""The process that decodes: it forks for every file, and lets nothing in or out but samples.

Run as a program by `services.audio.decoding`, with an empty environment and one socket. libsndfile
is C and reads what strangers send, so whoever takes over a fork of this finds a file to read, a
pipe to write to and nothing else: no environment, no other descriptors and no way to make any
(neither files nor sockets), and bounds on memory and time. Where Linux has seccomp
(https://docs.kernel.org/userspace-api/seccomp_filter.html) it answers no system call but those that
decoding takes, so that nothing can be renamed, removed, signalled or traced either. It imports
nothing of Demiurge.
"""

import contextlib
import ctypes
import errno
import os
import resource
import selectors
import signal
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path

# Bytes of memory, seconds of CPU, most channels; the descriptors of file, pipe and lifeline follow.
REQUEST = struct.Struct("<QQI")
# libsndfile's error code, container, subtype, frames, rate, channels.
HEADER = struct.Struct("<i16s16sqii")
# libsndfile's error code, frames that follow as float32; 0 and 0 at the end.
BLOCK = struct.Struct("<ii")
# How a fork ended, as waitpid says it.
ENDED = struct.Struct("<i")

BLOCK_FRAMES = 65_536
OUT_OF_MEMORY = 3
MOST_DESCRIPTORS = 1024
_SAMPLE_BYTES = 4
# prctl's, by the kernel's headers.
_DIE_WITH_PARENT, _SET_SECCOMP, _NO_NEW_PRIVILEGES = 1, 22, 38
_SECCOMP_FILTER = 2
# What decoding asks of the kernel once its file is open: the architecture's mark, then the numbers
# of read, write, fstat, newfstatat, lseek, mmap, mprotect, munmap, mremap, brk, madvise, futex,
# clock_gettime, rt_sigreturn, restart_syscall, exit_group.
_CALLS = {
    "x86_64": (0xC000003E, (0, 1, 5, 262, 8, 9, 10, 11, 25, 12, 28, 202, 228, 15, 219, 231)),
    "aarch64": (
        0xC00000B7,
        (63, 64, 80, 79, 62, 222, 226, 215, 216, 214, 233, 98, 113, 139, 128, 94),
    ),
}
# Of the filter's language (linux/filter.h): codes, and places in what it looks at.
_INSTRUCTION = struct.Struct("=HBBI")
_LOAD, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_NUMBER, _ARCHITECTURE = 0, 4
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | errno.EPERM


def decode(sound: int, samples: int, max_channels: int) -> None:
    """Decodes the open file `sound` into the pipe `samples`, as HEADER and BLOCK say."""
    import soundfile  # noqa: PLC0415 - the parent needs the layouts alone

    class Stream(soundfile.SoundFile):  # type: ignore[misc]  # soundfile has no types
        """Read from beginning to end: where soundfile may seek, MP3 lands elsewhere."""

        def seekable(self) -> bool:
            return False

    try:
        file = Stream(sound, closefd=False)
    except soundfile.SoundFileError as error:
        _write(samples, HEADER.pack(_code_of(error), b"", b"", 0, 0, 0))
        return
    header = (file.format.encode(), file.subtype.encode(), file.frames, file.samplerate)
    _write(samples, HEADER.pack(0, *header, file.channels))
    if file.channels > max_channels:
        return
    frame_bytes = file.channels * _SAMPLE_BYTES
    buffer = bytearray(BLOCK_FRAMES * frame_bytes)
    frames = -1
    while frames:
        try:
            frames = file.buffer_read_into(buffer, dtype="float32")
        except soundfile.SoundFileError as error:
            _write(samples, BLOCK.pack(_code_of(error), 0))
            return
        _write(samples, BLOCK.pack(0, frames))
        _write(samples, memoryview(buffer)[: frames * frame_bytes])


def confine(memory_bytes: int, cpu_seconds: int) -> None:
    """Takes from this process whatever decoding does not need, for good."""
    with contextlib.suppress(AttributeError, OSError):  # Linux alone has it
        system = ctypes.CDLL(None)
        system.prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        system.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    limits = {
        resource.RLIMIT_CPU: cpu_seconds,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_NOFILE: 0,
    }
    with contextlib.suppress(OSError):  # no /proc: no bound on memory
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limits[resource.RLIMIT_AS] = pages * resource.getpagesize() + memory_bytes
    for limit, value in limits.items():
        # At the hard limit of time the signal says nothing of why.
        hard = value + 1 if limit == resource.RLIMIT_CPU else value
        resource.setrlimit(limit, (value, hard))
    if can_filter():
        _filter()


class _Program(ctypes.Structure):
    """The kernel's struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def can_filter() -> bool:
    """Whether this system can refuse a process all system calls but those of decoding."""
    return (
        os.uname().machine in _CALLS
        and sys.maxsize > 2**32
        and sys.platform == "linux"
        # It looks for a program where there is none only if it knows what to do with one.
        and _set_seccomp(None) == errno.EFAULT
    )


def _filter() -> None:
    """From here on the kernel refuses all other system calls. Raises OSError if it cannot."""
    architecture, numbers = _CALLS[os.uname().machine]
    count = len(numbers)
    program = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        # Skipped: what is left of the program but its last two lines.
        (_IF_EQUAL, 0, count + 1, architecture),
        (_LOAD, 0, 0, _NUMBER),
        *((_IF_EQUAL, count - place, 0, number) for place, number in enumerate(numbers)),
        (_RETURN, 0, 0, _REFUSE),
        (_RETURN, 0, 0, _ALLOW),
    ]
    content = b"".join(_INSTRUCTION.pack(*line) for line in program)
    if error := _set_seccomp(ctypes.byref(_Program(len(program), content))):
        raise OSError(error, os.strerror(error))


def _set_seccomp(program: object) -> int:
    """The kernel's error, 0 for none."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    arguments = (_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_FILTER), program)
    failed = prctl(*arguments, ctypes.c_ulong(0), ctypes.c_ulong(0))
    return ctypes.get_errno() if failed else 0


def serve(control: socket.socket, work: Callable[[int, int, int], None] = decode) -> None:
    """Forks for every request, says how each fork ended, and ends with whoever asked."""
    # So that a fork has few to close.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(MOST_DESCRIPTORS, hard), hard))
    woken, waking = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(waking, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waking, warn_on_full_buffer=False)
    lifelines: dict[int, socket.socket] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        selector.register(woken, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is control:
                    request, received, _, _ = socket.recv_fds(control, REQUEST.size, 3)
                    if not request:
                        for pid in lifelines:
                            os.kill(pid, signal.SIGKILL)
                        return
                    sound, samples, end = received
                    pid = os.fork()
                    if not pid:
                        _run(request, sound, samples, work)
                    os.close(sound)
                    os.close(samples)
                    lifelines[pid] = socket.socket(fileno=end)
                    selector.register(lifelines[pid], selectors.EVENT_READ, pid)
                elif key.fileobj == woken:
                    os.read(woken, 4096)
                elif key.data in lifelines:
                    # Nobody waits for the samples any more.
                    os.kill(key.data, signal.SIGKILL)
                    selector.unregister(key.fileobj)
            _bury(lifelines, selector)


def _bury(lifelines: dict[int, socket.socket], selector: selectors.BaseSelector) -> None:
    while lifelines:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        with lifelines.pop(pid) as lifeline:
            with contextlib.suppress(KeyError):
                selector.unregister(lifeline)
            with contextlib.suppress(OSError):
                lifeline.send(ENDED.pack(status))


def _run(request: bytes, sound: int, samples: int, work: Callable[[int, int, int], None]) -> None:
    """What a fork does; never returns."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        os.dup2(sound, 0)
        os.dup2(samples, 1)
        os.closerange(3, MOST_DESCRIPTORS)
        memory_bytes, cpu_seconds, max_channels = REQUEST.unpack(request)
        confine(memory_bytes, cpu_seconds)
        work(0, 1, max_channels)
        code = 0
    except MemoryError:
        code = OUT_OF_MEMORY
    finally:
        os._exit(code)


def _write(pipe: int, content: bytes | memoryview) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(pipe, left) :]


def _code_of(error: Exception) -> int:
    return int(getattr(error, "code", -1)) or -1


def main(work: Callable[[int, int, int], None] = decode) -> None:
    """The program: serves on the socket whose descriptor is its only argument."""
    import soundfile  # noqa: F401, PLC0415 - once, for all forks

    with socket.socket(fileno=int(sys.argv[1])) as control:
        serve(control, work)


if __name__ == "__main__":
    main()
