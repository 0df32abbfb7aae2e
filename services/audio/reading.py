"""Sound files read as float32, whole or block by block, and refused by name where damaged.

libsndfile (https://libsndfile.github.io/libsndfile/) decodes. It shortens a truncated RIFF or AIFF
file silently, so the length that the header claims is checked here against what is there. MP3 and
Ogg are streams without a reliable length: whatever they hold is what they are.
"""

import io
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np
import soundfile
from numpy.typing import NDArray

from services.errors import UnreadableAudioError

AUDIO_EXTENSIONS = frozenset(
    {".aif", ".aiff", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".wav", ".wave"}
)
MAX_CHANNELS = 64
# Below and above, a rate is a damaged header; resampling it would ask for absurd amounts of memory.
MIN_SAMPLE_RATE_HERTZ = 1_000
MAX_SAMPLE_RATE_HERTZ = 1_000_000

# Frames times channels, for a sound read whole: 2 GiB of float32, three hours of stereo and more.
# Silence compresses to almost nothing, so the size of a file says little about the memory that it
# asks for.
MAX_SAMPLES = 2**29
# For one read block by block, which asks for time instead: a day of stereo.
MAX_STREAMED_SAMPLES = 2**33

_BLOCK_FRAMES = 65_536
# Container magic → byte order of its sizes, and the chunk that holds the samples.
_CHUNKED = {
    b"RIFF": ("<", b"data"),
    b"RIFX": (">", b"data"),
    b"RF64": ("<", b"data"),
    b"FORM": (">", b"SSND"),
}
_SIZE_IN_DS64 = 0xFFFFFFFF
_WITHOUT_LENGTH = frozenset({"MP3", "OGG"})
_UNKNOWN_LENGTH = 2**63 - 1  # libsndfile's answer for FLAC that was written to a pipe
# libsndfile's public error codes. Its others say things like "file does not exist" of damaged MP3.
_CODES_FOR_PEOPLE = range(1, 5)

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Sound:
    """A whole sound: `samples` is (frames, channels) float32, finite, full scale at ±1."""

    samples: FloatArray
    sample_rate_hertz: int
    name: str

    @property
    def frame_count(self) -> int:
        """Length in samples per channel."""
        return int(self.samples.shape[0])

    @property
    def channel_count(self) -> int:
        """Number of channels."""
        return int(self.samples.shape[1])


def is_audio_name(name: str) -> bool:
    """Whether a file of this name is taken for sound: by its extension, in any case."""
    return PurePosixPath(name).suffix.lower() in AUDIO_EXTENSIONS


def read_audio(
    source: Path | BinaryIO, *, name: str, checkpoint: Callable[[], None] = lambda: None
) -> Sound:
    """Reads a sound whole: WAV, FLAC, OGG, MP3, AIFF of any width and up to 64 channels.

    `source` is a path, or a seekable file, which is read from its beginning and left open. The
    content decides, not the extension. Integers become x / 2^(bits - 1). `checkpoint` is called at
    every block and raises to stop.

    Raises UnreadableAudioError, naming `name`, for whatever is not sound, is damaged or shorter
    than its header claims, holds no samples, samples that are not finite, or more than MAX_SAMPLES
    over all channels.
    """
    with open_audio(source, name=name, max_samples=MAX_SAMPLES) as stream:
        blocks = []
        for block in stream.blocks():
            checkpoint()
            blocks.append(block)
        samples = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
        return Sound(samples, stream.sample_rate_hertz, name)


@contextmanager
def open_audio(
    source: Path | BinaryIO, *, name: str, max_samples: int = MAX_STREAMED_SAMPLES
) -> "Iterator[SoundStream]":
    """Opens a sound to be read block by block, its header checked; all else is as in read_audio.

    What is wrong beyond the header is raised by the block where it shows.
    """
    if isinstance(source, Path):
        try:
            file = source.open("rb")
        except OSError as error:
            raise _unreadable(name, f"cannot be opened: {error.strerror}") from error
        with file, open_audio(file, name=name, max_samples=max_samples) as stream:
            yield stream
        return
    _refuse_false_length(source, name)
    source.seek(0)
    with _decoding(name):
        sound_file = _Stream(_Nameless(source))
    with sound_file:
        yield SoundStream(sound_file, name, max_samples)


def channel_count_of(beginning: bytes) -> int | None:
    """The channels of a sound whose file begins so; None where that does not tell."""
    try:
        with soundfile.SoundFile(io.BytesIO(beginning)) as sound_file:
            channels = int(sound_file.channels)
    except soundfile.SoundFileError:
        return None
    return channels if channels <= MAX_CHANNELS else None


class SoundStream:
    """An open sound, decoded once from its beginning to its end."""

    def __init__(self, sound_file: "_Stream", name: str, max_samples: int) -> None:
        self._file = sound_file
        self._max_samples = max_samples
        self.name = name
        self.sample_rate_hertz = int(sound_file.samplerate)
        self.channel_count = int(sound_file.channels)
        if self.channel_count > MAX_CHANNELS:
            raise _unreadable(
                name, f"has {self.channel_count} channels; at most {MAX_CHANNELS} can be read"
            )
        if not MIN_SAMPLE_RATE_HERTZ <= self.sample_rate_hertz <= MAX_SAMPLE_RATE_HERTZ:
            raise _unreadable(name, f"claims a rate of {self.sample_rate_hertz} Hz")
        claimed = int(sound_file.frames)
        has_length = sound_file.format not in _WITHOUT_LENGTH and claimed != _UNKNOWN_LENGTH
        self._claimed = claimed if has_length else 0
        self._refuse_too_long(self._claimed, "claims")

    def blocks(self) -> Iterator[FloatArray]:
        """The samples in order, (frames, channels) float32; the memory is that of one block."""
        frames = 0
        while len(block := self._next()):
            frames += len(block)
            self._refuse_too_long(frames, "holds")
            if not np.isfinite(block).all():
                raise _unreadable(self.name, "holds samples that are not finite (NaN or infinity)")
            yield block
        if not frames:
            raise _unreadable(self.name, "holds no samples")
        if frames < self._claimed:
            raise _unreadable(
                self.name, f"is truncated: {frames} of {self._claimed} samples are there"
            )

    def _next(self) -> FloatArray:
        with _decoding(self.name):
            block: FloatArray = self._file.read(_BLOCK_FRAMES, dtype="float32", always_2d=True)
        return block

    def _refuse_too_long(self, frames: int, verb: str) -> None:
        if frames * self.channel_count > self._max_samples:
            raise _unreadable(
                self.name,
                f"{verb} more than {self._max_samples} samples over all channels: cut it in pieces",
            )


@contextmanager
def _decoding(name: str) -> Iterator[None]:
    """Says of libsndfile's refusals what people can use."""
    try:
        yield
    except soundfile.SoundFileError as error:
        known = getattr(error, "code", 0) in _CODES_FOR_PEOPLE
        why = error.error_string.rstrip(".") if known else "its content is damaged"
        raise _unreadable(name, f"cannot be decoded: {why}") from error


class _Nameless:
    """A file without its name: soundfile would take the name's extension for the format."""

    def __init__(self, file: BinaryIO) -> None:
        self.read = file.read
        self.readinto = getattr(file, "readinto", None)
        self.seek = file.seek
        self.tell = file.tell
        self.write = file.write


class _Stream(soundfile.SoundFile):  # type: ignore[misc]  # soundfile has no types
    """A sound file read from its beginning to its end, however long it claims to be.

    Where soundfile may seek, it does so after every read, and MP3 does not land where it left off.
    """

    def seekable(self) -> bool:
        return False


def _refuse_false_length(file: BinaryIO, name: str) -> None:
    """Raises UnreadableAudioError if the file is empty, or its samples end before its header says.

    Walks the chunks of a RIFF, RF64 or AIFF file to the one that holds the samples.
    """
    end = file.seek(0, 2)
    if not end:
        raise _unreadable(name, "is empty")
    file.seek(0)
    magic = file.read(12)[:4]
    if magic not in _CHUNKED:
        return
    order, wanted = _CHUNKED[magic]
    long_size = 0
    position = 12
    while position + 8 <= end:
        file.seek(position)
        kind, size = struct.unpack(f"{order}4sI", file.read(8))
        position += 8
        if kind == b"ds64":
            _, long_size = struct.unpack("<QQ", file.read(16).ljust(16, b"\0"))
        if kind == wanted:
            claimed = long_size if magic == b"RF64" and size == _SIZE_IN_DS64 else size
            if claimed > end - position:
                raise _unreadable(
                    name,
                    f"is truncated: its header claims {claimed} bytes of samples, "
                    f"{end - position} are there",
                )
            return
        position += size + size % 2
    raise _unreadable(name, "is truncated: it ends before its samples begin")


def _unreadable(name: str, why: str) -> UnreadableAudioError:
    return UnreadableAudioError(f"{name} {why}", culprit=name)
