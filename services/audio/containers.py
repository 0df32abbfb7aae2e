"""What a file is by its first bytes: the containers that are read at all, and what they claim.

libsndfile knows some thirty formats, most of them of long gone samplers and workstations. Nobody
sends those but to find a hole in their parsers, so it is only shown files that begin as one of
these: RIFF, RF64, AIFF, FLAC, Ogg with Vorbis, Opus or FLAC, and MPEG audio.
"""

import struct
from dataclasses import dataclass
from typing import BinaryIO, Literal

# Of the container, and of the samples in it, as libsndfile names them once it has opened a file.
CONTAINERS = frozenset({"WAV", "WAVEX", "RF64", "AIFF", "FLAC", "OGG", "MP3"})
SUBTYPES = frozenset(
    {
        *("PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"),
        *("VORBIS", "OPUS", "MPEG_LAYER_I", "MPEG_LAYER_II", "MPEG_LAYER_III"),
    }
)
# How many bytes `container_of` wants of a file's beginning.
BEGINNING_BYTES = 512

_FORMS = {
    b"RIFF": (b"WAVE",),
    b"RIFX": (b"WAVE",),
    b"RF64": (b"WAVE",),
    b"FORM": (b"AIFF", b"AIFC"),
}
_OGG_HEADER_BYTES = 27
_OGG_CODECS = (b"\x01vorbis", b"OpusHead", b"\x7fFLAC")
_MAX_TAGS = 4
# Before the samples. Those of honest files can be counted on the fingers; a file may hold a hundred
# million, and they are walked outside the decoder's bounds.
MAX_CHUNKS = 1_000
# Container magic → byte order of its sizes, and the chunk that holds the samples.
_CHUNKED = {
    b"RIFF": ("<", b"data"),
    b"RIFX": (">", b"data"),
    b"RF64": ("<", b"data"),
    b"FORM": (">", b"SSND"),
}
_SIZE_IN_DS64 = 0xFFFFFFFF
_FORMAT_BYTES = 16


class MisleadingHeaderError(Exception):
    """A header that claims what is not there; says so in words that follow the file's name."""


@dataclass(frozen=True)
class WavData:
    """Where the samples of a RIFF file lie, and its format chunk."""

    position: int
    size: int
    format: bytes


def is_known(file: BinaryIO) -> bool:
    """Whether the file begins as one of the containers; tags of MP3 before it are passed over."""
    position = 0
    for _ in range(_MAX_TAGS):
        file.seek(position)
        beginning = file.read(BEGINNING_BYTES)
        tag = _tag_bytes(beginning)
        if not tag:
            return _begins_known(beginning)
        position += tag
    return False


def _tag_bytes(beginning: bytes) -> int:
    """Length of the ID3 tag that comes first; 0 if none does."""
    if beginning[:3] != b"ID3" or len(beginning) < 10:
        return 0
    size = 0
    # Four times seven bits, without the tag's header.
    for octet in beginning[6:10]:
        size = size << 7 | octet & 0x7F
    return 10 + size


def _begins_known(beginning: bytes) -> bool:
    magic = beginning[:4]
    if magic in _FORMS:
        return beginning[8:12] in _FORMS[magic]
    if magic == b"fLaC":
        return True
    if magic == b"OggS":
        return _ogg_packet(beginning).startswith(_OGG_CODECS)
    if len(beginning) < 4 or beginning[0] != 0xFF or beginning[1] & 0xE0 != 0xE0:
        return False
    # An MPEG frame: neither version, layer, bit rate nor sample rate are the reserved ones.
    version, layer = beginning[1] >> 3 & 3, beginning[1] >> 1 & 3
    return version != 1 and layer != 0 and beginning[2] >> 4 != 15 and beginning[2] >> 2 & 3 != 3


def _ogg_packet(page: bytes) -> bytes:
    """The first packet of an Ogg page that the file begins with."""
    if len(page) < _OGG_HEADER_BYTES:
        return b""
    return page[_OGG_HEADER_BYTES + page[26] :]


def channel_count_of(beginning: bytes) -> int | None:
    """The channels of a sound whose file begins so; None where that does not tell."""
    count = 0
    start = beginning[_tag_bytes(beginning) :]
    if not _begins_known(start[:BEGINNING_BYTES]):
        return None
    if start[:4] == b"RIFF":
        count = _number_in_chunk(start, b"fmt ", 2, "little")
    elif start[:4] == b"FORM":
        count = _number_in_chunk(start, b"COMM", 0, "big")
    elif start[:4] == b"fLaC" and len(start) > 20:
        count = (start[20] >> 1 & 7) + 1
    elif start[:4] == b"OggS":
        packet = _ogg_packet(start)
        at = 11 if packet.startswith(b"\x01vorbis") else 9
        if len(packet) > at and not packet.startswith(b"\x7fFLAC"):
            count = packet[at]
    elif start[0] == 0xFF:
        count = 1 if start[3] >> 6 == 3 else 2
    return count or None


def _number_in_chunk(
    start: bytes, kind: bytes, offset: int, order: Literal["little", "big"]
) -> int:
    """Two bytes of the first chunk of that kind; 0 if they are not there."""
    at = start.find(kind, 12)
    place = at + 8 + offset
    return int.from_bytes(start[place : place + 2], order) if at >= 0 else 0


def wav_data(file: BinaryIO) -> WavData | None:
    """Walks the chunks of a RIFF, RF64 or AIFF file to the one that holds the samples.

    Answers where a RIFF file has them; None for whatever else. Raises MisleadingHeaderError if the
    samples end before the header says, or more than MAX_CHUNKS chunks come before them.
    """
    end = file.seek(0, 2)
    file.seek(0)
    magic = file.read(12)[:4]
    if magic not in _CHUNKED:
        return None
    order, wanted = _CHUNKED[magic]
    long_size = 0
    position = 12
    form = b""
    for _ in range(MAX_CHUNKS + 1):
        if position + 8 > end:
            raise MisleadingHeaderError("is truncated: it ends before its samples begin")
        file.seek(position)
        kind, size = struct.unpack(f"{order}4sI", file.read(8))
        position += 8
        if kind == b"ds64":
            _, long_size = struct.unpack("<QQ", file.read(16).ljust(16, b"\0"))
        if kind == b"fmt ":
            # One alone is plain.
            form = b"" if form else file.read(min(size, _FORMAT_BYTES))
        if kind == wanted:
            claimed = long_size if magic == b"RF64" and size == _SIZE_IN_DS64 else size
            if claimed > end - position:
                raise MisleadingHeaderError(
                    f"is truncated: its header claims {claimed} bytes of samples, "
                    f"{end - position} are there"
                )
            return WavData(position, size, form) if magic == b"RIFF" else None
        position += size + size % 2
    raise MisleadingHeaderError(f"holds more than {MAX_CHUNKS} chunks before its samples")
