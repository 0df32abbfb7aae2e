"""Decoding elsewhere: a file goes to a process that has nothing to lose, samples come back.

`services.audio.decoder` is that process; it is started with the first file, forks for each, and
ends with this one however this one ends. A fork costs some four milliseconds of a processor.
"""

import atexit
import contextlib
import fcntl
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from services.audio import decoder
from services.errors import UnavailableError, UnreadableAudioError
from services.temporary import temporary_room

FloatArray = NDArray[np.float32]
_LOG = logging.getLogger(__name__)

# What libsndfile's public error codes mean. Its others say things like "file does not exist" of
# damaged MP3.
_REASONS = {
    1: "Format not recognised",
    2: "System error",
    3: "Supported file format but file is malformed",
    4: "Supported file format but unsupported encoding",
}
_PIPE_BYTES = 1 << 20
_COPIED_BYTES = 1 << 20
# Only a sound's last block is not full. A decoder that was taken over could send millions, each of
# which costs whoever reads them more than the decoder.
_MOST_SHORT_BLOCKS = 1_000


@dataclass(frozen=True)
class Limits:
    """What decoding one file may take."""

    memory_bytes: int = 256 << 20
    """Beyond what an idle decoder has; blocks of 64 channels take 16 MiB."""
    base_seconds: int = 30
    """CPU time for any file."""
    bytes_a_second: int = 200_000
    """One more second for each of these. The densest honest sound, an hour of speech at 16 kbit/s,
    decodes in a third of that."""
    silence_seconds: float = 60.0
    """How long the next block may take by the clock."""

    def cpu_seconds(self, size_bytes: int) -> int:
        """CPU time for a file of that size."""
        return self.base_seconds + size_bytes // self.bytes_a_second


class Decoders:
    """Starts decoding processes, through one that is kept; for use by any number of threads."""

    def __init__(self, program: Path = Path(decoder.__file__)) -> None:
        self._program = program
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._owner = os.getpid()

    def start(self, request: bytes, sound: int) -> tuple[int, socket.socket]:
        """Sends the file on its way; the pipe that samples come from, and the lifeline.

        The fork dies when the lifeline is closed. Raises UnavailableError if there is no starting.
        """
        samples, theirs = os.pipe()
        with contextlib.suppress(OSError, AttributeError):  # fewer turns, where there may be
            fcntl.fcntl(samples, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        lifeline, end = socket.socketpair()
        try:
            self._send(request, [sound, theirs, end.fileno()])
        except OSError as error:
            os.close(samples)
            lifeline.close()
            raise UnavailableError(
                f"the decoder of sounds cannot be started ({error.strerror}): try again"
            ) from error
        finally:
            os.close(theirs)
            end.close()
        return samples, lifeline

    def close(self) -> None:
        """Ends the process and its forks; the next file starts it anew."""
        with self._lock:
            self._end()

    def _send(self, request: bytes, descriptors: list[int]) -> None:
        if self._owner != os.getpid():
            # A fork of whoever started it shares neither its answers nor the state of its lock.
            self._owner, self._lock = os.getpid(), threading.Lock()
            self._process = self._control = None
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                with contextlib.suppress(OSError):
                    self._send_to(request, descriptors)
                    return
            self._end()
            self._launch()
            self._send_to(request, descriptors)

    def _send_to(self, request: bytes, descriptors: list[int]) -> None:
        assert self._control  # noqa: S101 - it is there while the process is
        socket.send_fds(self._control, [request], descriptors)

    def _launch(self) -> None:
        if not decoder.can_filter():
            _LOG.info("no seccomp here: decoders of sounds are held by their limits alone")
        control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-I", str(self._program), str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                # No secret is in it, and no second thread, which a fork would not have.
                env={"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
                cwd="/",
                # Ctrl-C is for whoever waits for the samples.
                start_new_session=True,
            )
        self._control = control
        atexit.register(self._end)

    def _end(self) -> None:
        atexit.unregister(self._end)
        if self._control:
            self._control.close()
        if self._process:
            self._process.wait()
        self._process = self._control = None


DECODERS = Decoders()
"""Of this process; nothing runs before the first file."""


class Decoded:
    """A sound that is being decoded elsewhere: what its header says, then its samples."""

    def __init__(self, pipe: int, lifeline: socket.socket, name: str, patience: float) -> None:
        self._pipe = pipe
        self._lifeline = lifeline
        self._name = name
        self._patience = patience
        self._short_blocks = 0
        code, container, subtype, *numbers = decoder.HEADER.unpack(
            self._received(decoder.HEADER.size)
        )
        self._refuse(code)
        self.container = container.rstrip(b"\0").decode(errors="replace")
        self.subtype = subtype.rstrip(b"\0").decode(errors="replace")
        self.frame_count, self.sample_rate_hertz, self.channel_count = numbers

    def read(self) -> FloatArray:
        """The next block, (frames, channels); of no frames at the end."""
        code, frames = decoder.BLOCK.unpack(self._received(decoder.BLOCK.size))
        self._refuse(code)
        self._short_blocks += frames < decoder.BLOCK_FRAMES
        if not 0 <= frames <= decoder.BLOCK_FRAMES or self._short_blocks > _MOST_SHORT_BLOCKS:
            raise self._undecodable("the decoder answers nonsense")
        block = np.empty((frames, self.channel_count), np.float32)
        self._fill(block.data.cast("B") if frames else memoryview(b""))
        return block

    def _received(self, size: int) -> bytes:
        content = bytearray(size)
        self._fill(memoryview(content))
        return bytes(content)

    def _fill(self, room: memoryview) -> None:
        poll = select.poll()
        poll.register(self._pipe, select.POLLIN)
        end = time.monotonic() + self._patience
        left = room
        while left:
            if not poll.poll(max(0.0, end - time.monotonic()) * 1000):
                raise self._undecodable("the decoder hangs")
            count = os.readv(self._pipe, [left])
            if not count:
                raise self._end()
            left = left[count:]

    def _end(self) -> Exception:
        """Why no more came."""
        self._lifeline.settimeout(self._patience)
        try:
            status = self._lifeline.recv(decoder.ENDED.size)
        except OSError:
            status = b""
        code = os.waitstatus_to_exitcode(*decoder.ENDED.unpack(status)) if status else 0
        if code == -signal.SIGXCPU:
            return self._undecodable("it takes longer than a sound of its size may")
        if code == decoder.OUT_OF_MEMORY:
            return self._undecodable("it takes more memory than a sound may")
        if code in {-signal.SIGKILL, 0}:
            # Not the file's doing, or not for certain: whoever asks again may be luckier.
            return UnavailableError(
                f"{self._name}: the decoder was killed: try again", culprit=self._name
            )
        how = signal.Signals(-code).name if code < 0 else f"code {code}"
        return self._undecodable(f"the decoder crashed on it ({how})")

    def _refuse(self, code: int) -> None:
        if code:
            raise self._undecodable(_REASONS.get(code, "its content is damaged"))

    def _undecodable(self, why: str) -> UnreadableAudioError:
        return UnreadableAudioError(f"{self._name} cannot be decoded: {why}", culprit=self._name)


@contextmanager
def decoded(
    file: BinaryIO, *, name: str, max_channels: int, limits: Limits | None = None
) -> Iterator[Decoded]:
    """Decodes an open file in a process of its own, which ends with the context at the latest.

    Raises UnreadableAudioError, naming `name`, for what libsndfile refuses, or what makes it crash,
    hang, or exceed `limits`; UnavailableError if the process cannot be had, or was killed.
    """
    bounds = limits or Limits()
    with ExitStack() as stack:
        sound = stack.enter_context(_own_descriptor(file, name))
        seconds = bounds.cpu_seconds(os.fstat(sound).st_size)
        request = decoder.REQUEST.pack(bounds.memory_bytes, seconds, max_channels)
        pipe, lifeline = DECODERS.start(request, sound)
        stack.callback(os.close, pipe)
        stack.enter_context(lifeline)
        yield Decoded(pipe, lifeline, name, bounds.silence_seconds)


@contextmanager
def _own_descriptor(file: BinaryIO, name: str) -> Iterator[int]:
    """A descriptor of the file's content, for reading alone, with a position of its own."""
    with ExitStack() as stack:
        try:
            number = file.fileno()
        except OSError:  # in memory alone
            copy = stack.enter_context(tempfile.TemporaryFile())
            file.seek(0)
            with temporary_room(name):
                while part := file.read(_COPIED_BYTES):
                    copy.write(part)
                copy.flush()
            number = copy.fileno()
        own = os.open(f"/dev/fd/{number}", os.O_RDONLY)
        stack.callback(os.close, own)
        # Where that is but another name of the same open file, the position is shared.
        os.lseek(own, 0, os.SEEK_SET)
        yield own
