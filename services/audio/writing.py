"""Sound files written the same way every time: the same samples, the same bytes.

WAV headers are written here, because libsndfile stamps the time of day into those of float files;
it encodes FLAC. Whoever needs the file whole or not at all writes to where that is taken care of.
"""

import struct
from collections.abc import Iterable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile
from numpy.typing import NDArray

from services.errors import InvalidInputError

_BLOCK_FRAMES = 65_536
_PCM, _IEEE_FLOAT = 1, 3
_MAX_RIFF_BYTES = 0xFFFFFFFF
_MAX_FLAC_CHANNELS = 8
_MAX_FLAC_RATE_HERTZ = 655_350


class Encoding(Enum):
    """Container and sample format; the value is bits per sample and the usual extension."""

    WAV_PCM16 = (16, "wav")
    WAV_PCM24 = (24, "wav")
    WAV_FLOAT = (32, "wav")
    FLAC = (24, "flac")

    @property
    def bits(self) -> int:
        """Width of one sample."""
        return self.value[0]

    @property
    def extension(self) -> str:
        """Extension of a file's name, without the dot."""
        return self.value[1]


def write_audio(
    target: Path | BinaryIO,
    samples: NDArray[np.floating[Any]],
    sample_rate_hertz: int,
    encoding: Encoding = Encoding.WAV_PCM16,
) -> None:
    """Writes (frames, channels) samples, full scale at ±1.

    Integers are round(x * 2^(bits - 1)), clipped to what the width holds: what was read from a
    file of that width is written back bit for bit. Floats are written as they are, unclipped.

    Raises InvalidInputError if the shape is another, a sample is not finite, or the container
    cannot hold so many samples or channels, or such a rate.
    """
    if samples.ndim != 2 or not samples.shape[1]:
        raise InvalidInputError(f"samples of shape {samples.shape} are not (frames, channels)")
    _refuse_infinite(samples)
    if isinstance(target, Path):
        with target.open("wb") as file:
            write_audio(file, samples, sample_rate_hertz, encoding)
    elif encoding is Encoding.FLAC:
        _write_flac(target, samples, sample_rate_hertz)
    else:
        write_wav(target, _blocks(samples), samples.shape, sample_rate_hertz, encoding)


def quantized(samples: NDArray[np.floating[Any]], bits: int) -> NDArray[np.int32]:
    """round(x * 2^(bits - 1)), clipped to [-2^(bits - 1), 2^(bits - 1) - 1]; bits at most 24."""
    scale = 2 ** (bits - 1)
    integers: NDArray[np.int32] = np.clip(np.rint(samples * scale), -scale, scale - 1).astype(
        np.int32
    )
    return integers


def write_wav(
    file: BinaryIO,
    blocks: Iterable[NDArray[np.floating[Any]]],
    shape: tuple[int, ...],
    sample_rate_hertz: int,
    encoding: Encoding = Encoding.WAV_PCM16,
) -> None:
    """Writes samples as they come in (n, channels) blocks, (frames, channels) = `shape` in all.

    The memory is a block's; all else is as in write_audio.
    """
    frames, channels = shape
    file.write(wav_header(frames, channels, sample_rate_hertz, encoding))
    written = 0
    for block in blocks:
        if block.ndim != 2 or block.shape[1] != channels:
            raise InvalidInputError(f"samples of shape {block.shape} are not (n, {channels})")
        _refuse_infinite(block)
        written += len(block)
        if encoding is Encoding.WAV_FLOAT:
            file.write(block.astype("<f4").tobytes())
        else:
            integers = quantized(block, encoding.bits).astype("<i4")
            octets = integers.reshape(-1, 1).view(np.uint8)
            file.write(octets[:, : encoding.bits // 8].tobytes())
    if written != frames:
        raise InvalidInputError(f"{written} samples a channel came, not {frames}")
    file.write(b"\0" * (frames * channels * encoding.bits // 8 % 2))


def _refuse_infinite(samples: NDArray[np.floating[Any]]) -> None:
    if not np.isfinite(samples).all():
        raise InvalidInputError("samples that are not finite (NaN or infinity) cannot be written")


def wav_header(frames: int, channels: int, sample_rate_hertz: int, encoding: Encoding) -> bytes:
    """What stands before the samples; an odd number of bytes of them is followed by a zero.

    Raises InvalidInputError if WAV cannot hold as many.
    """
    is_float = encoding is Encoding.WAV_FLOAT
    frame_bytes = channels * encoding.bits // 8
    data_bytes = frames * frame_bytes
    format_chunk = struct.pack(
        "<HHIIHH",
        _IEEE_FLOAT if is_float else _PCM,
        channels,
        sample_rate_hertz,
        sample_rate_hertz * frame_bytes,
        frame_bytes,
        encoding.bits,
    )
    chunks = [(b"fmt ", format_chunk)]
    if is_float:
        # Formats other than PCM carry an (empty) extension and the number of frames.
        chunks = [(b"fmt ", format_chunk + b"\0\0"), (b"fact", struct.pack("<I", frames))]
    header = b"".join(struct.pack("<4sI", kind, len(body)) + body for kind, body in chunks)
    riff_bytes = len(b"WAVE") + len(header) + 8 + data_bytes + data_bytes % 2
    if riff_bytes > _MAX_RIFF_BYTES:
        raise InvalidInputError("WAV holds at most 4 GiB; write FLAC, or a shorter sound")
    riff = struct.pack("<4sI4s", b"RIFF", riff_bytes, b"WAVE")
    return riff + header + struct.pack("<4sI", b"data", data_bytes)


def _write_flac(file: BinaryIO, samples: NDArray[np.floating[Any]], sample_rate_hertz: int) -> None:
    channels = samples.shape[1]
    if channels > _MAX_FLAC_CHANNELS or sample_rate_hertz > _MAX_FLAC_RATE_HERTZ:
        raise InvalidInputError(
            f"FLAC holds at most {_MAX_FLAC_CHANNELS} channels and {_MAX_FLAC_RATE_HERTZ} Hz, not "
            f"{channels} channels at {sample_rate_hertz} Hz; write WAV"
        )
    with soundfile.SoundFile(
        file, "w", sample_rate_hertz, channels, subtype="PCM_24", format="FLAC"
    ) as sound_file:
        for block in _blocks(samples):
            # soundfile takes 24 bits as the upper three octets of int32.
            sound_file.write(quantized(block, Encoding.FLAC.bits) << 8)


def _blocks(samples: NDArray[np.floating[Any]]) -> Iterator[NDArray[np.floating[Any]]]:
    for start in range(0, len(samples), _BLOCK_FRAMES):
        yield samples[start : start + _BLOCK_FRAMES]
