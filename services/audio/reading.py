"""Sound files read as float32, whole or block by block, and refused by name where damaged.

Plain WAV is read here; libsndfile (https://libsndfile.github.io/libsndfile/) decodes all else, in
a process of its own. It shortens a truncated RIFF or AIFF file silently, so the length that the
header claims is checked here against what is there. MP3 and Ogg are streams without a reliable
length: whatever they hold is what they are.
"""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from services.audio import containers
from services.audio.decoder import BLOCK_FRAMES
from services.audio.decoding import Decoded, decoded
from services.audio.plain_wav import PlainWav
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

_WITHOUT_LENGTH = frozenset({"MP3", "OGG"})
_UNKNOWN_LENGTH = 2**63 - 1  # libsndfile's answer for FLAC that was written to a pipe

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
        with (
            _opened(source, name) as file,
            open_audio(file, name=name, max_samples=max_samples) as stream,
        ):
            yield stream
        return
    if not source.seek(0, 2):
        raise _unreadable(name, "is empty")
    if not containers.is_known(source):
        raise _unreadable(
            name, "cannot be decoded: it is neither WAV, AIFF, FLAC, Ogg Vorbis, Opus nor MP3"
        )
    try:
        data = containers.wav_data(source)
    except containers.MisleadingHeaderError as error:
        raise _unreadable(name, str(error)) from None
    if data:
        try:
            plain = PlainWav(source, data, BLOCK_FRAMES)
        except ValueError:
            pass
        else:
            yield SoundStream(plain, name, max_samples)
            return
    with decoded(source, name=name, max_channels=MAX_CHANNELS) as sound:
        if sound.container not in containers.CONTAINERS or sound.subtype not in containers.SUBTYPES:
            raise _unreadable(
                name,
                f"cannot be decoded: {sound.container} of {sound.subtype} is not read here: "
                "convert it to WAV or FLAC",
            )
        yield SoundStream(sound, name, max_samples)


def channel_count_of(beginning: bytes) -> int | None:
    """The channels of a sound whose file begins so; None where that does not tell."""
    channels = containers.channel_count_of(beginning)
    return channels if channels and channels <= MAX_CHANNELS else None


class SoundStream:
    """An open sound, decoded once from its beginning to its end."""

    def __init__(self, sound: Decoded | PlainWav, name: str, max_samples: int) -> None:
        self._sound = sound
        self._max_samples = max_samples
        self.name = name
        self.sample_rate_hertz = sound.sample_rate_hertz
        self.channel_count = sound.channel_count
        if not 0 < self.channel_count <= MAX_CHANNELS:
            raise _unreadable(
                name, f"has {self.channel_count} channels; at most {MAX_CHANNELS} can be read"
            )
        if not MIN_SAMPLE_RATE_HERTZ <= self.sample_rate_hertz <= MAX_SAMPLE_RATE_HERTZ:
            raise _unreadable(name, f"claims a rate of {self.sample_rate_hertz} Hz")
        claimed = sound.frame_count
        has_length = sound.container not in _WITHOUT_LENGTH and claimed != _UNKNOWN_LENGTH
        self._claimed = claimed if has_length else 0
        self._refuse_too_long(self._claimed, "claims")

    def blocks(self) -> Iterator[FloatArray]:
        """The samples in order, (frames, channels) float32; the memory is that of one block."""
        frames = 0
        while len(block := self._sound.read()):
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

    def _refuse_too_long(self, frames: int, verb: str) -> None:
        if frames * self.channel_count > self._max_samples:
            raise _unreadable(
                self.name,
                f"{verb} more than {self._max_samples} samples over all channels: cut it in pieces",
            )


@contextmanager
def _opened(path: Path, name: str) -> Iterator[BinaryIO]:
    """An ordinary file: opening a pipe would wait for whoever writes to it."""
    try:
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _unreadable(name, f"cannot be opened: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise _unreadable(name, "cannot be opened: it is not a file")
    with os.fdopen(number, "rb") as file:
        yield file


def _unreadable(name: str, why: str) -> UnreadableAudioError:
    return UnreadableAudioError(f"{name} {why}", culprit=name)
