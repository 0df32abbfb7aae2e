"""WAV of plain numbers, read by numpy alone: most sounds here are, and there is nothing to decode.

What is anything but plain (extensible, A-law, several formats, samples that do not fill frames) is
left to libsndfile, whose answer this equals bit for bit.
"""

import io
import struct
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from services.audio.containers import WavData

FloatArray = NDArray[np.float32]

_PCM, _FLOAT = 1, 3
# Format tag and bits of a sample.
_PLAIN = {(_PCM, 8), (_PCM, 16), (_PCM, 24), (_PCM, 32), (_FLOAT, 32), (_FLOAT, 64)}


class PlainWav:
    """The samples of a plain WAV file, in the form of `services.audio.decoding.Decoded`."""

    container = "WAV"

    def __init__(self, file: BinaryIO, data: WavData, block_frames: int) -> None:
        """Raises ValueError if the file is not plain."""
        tag, channels, rate, _, frame_bytes, bits = _format(data.format)
        if (tag, bits) not in _PLAIN or not channels or frame_bytes != channels * bits // 8:
            raise ValueError("not plain")
        # Without a size, libsndfile reads to the end of the file.
        if not data.size or data.size % frame_bytes:
            raise ValueError("not plain")
        self.subtype = "FLOAT" if tag == _FLOAT else f"PCM_{bits}"
        self.sample_rate_hertz = rate
        self.channel_count = channels
        self.frame_count = data.size // frame_bytes
        self._file = cast(io.BufferedIOBase, file)
        self._frame_bytes = frame_bytes
        self._is_float = tag == _FLOAT
        self._bits = bits
        self._block_frames = block_frames
        self._position = data.position
        self._left = self.frame_count

    def read(self) -> FloatArray:
        """The next block, (frames, channels); of no frames at the end."""
        frames = min(self._left, self._block_frames)
        self._file.seek(self._position)
        buffer = bytearray(frames * self._frame_bytes)
        # Fewer if someone cut the file meanwhile.
        frames = self._file.readinto(buffer) // self._frame_bytes
        content = memoryview(buffer)[: frames * self._frame_bytes]
        self._position += len(content)
        self._left -= frames
        return self._samples(content).reshape(frames, self.channel_count)

    def _samples(self, content: memoryview) -> FloatArray:
        if self._is_float:
            # Beyond what float32 holds is infinite, and refused as such.
            with np.errstate(over="ignore"):
                return np.frombuffer(content, f"<f{self._bits // 8}").astype(np.float32)
        if self._bits == 8:
            integers = np.frombuffer(content, np.uint8).astype(np.float32) - 128
        elif self._bits == 24:
            octets = np.frombuffer(content, np.uint8).reshape(-1, 3)
            widened = np.zeros((len(octets), 4), np.uint8)
            widened[:, 1:] = octets
            integers = (widened.reshape(-1).view("<i4") >> 8).astype(np.float32)
        else:
            integers = np.frombuffer(content, f"<i{self._bits // 8}").astype(np.float32)
        samples: FloatArray = integers * np.float32(2.0 ** (1 - self._bits))
        return samples


def _format(chunk: bytes) -> tuple[int, int, int, int, int, int]:
    if len(chunk) < 16:
        raise ValueError("not plain")
    return struct.unpack("<HHIIHH", chunk)
