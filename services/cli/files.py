"""Files that a person keeps: read with clear errors, written whole or not at all."""

from pathlib import Path
from typing import TYPE_CHECKING

from services.errors import InvalidInputError, NotFoundError

if TYPE_CHECKING:
    from services.audio.track import DescriptorTrack


def read_file(path: Path) -> bytes:
    """The content; NotFoundError, naming the file, if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise NotFoundError(f"{path}: {error.strerror}", culprit=str(path)) from error


def read_descriptors(path: Path) -> "list[DescriptorTrack]":
    """The tracks of a descriptor file; InvalidInputError, naming it, if it holds none."""
    from services.audio.track_json import read_tracks

    tracks = read_tracks(read_file(path), source=str(path))
    if not tracks:
        raise InvalidInputError(f"{path} holds no descriptors", culprit=str(path))
    return tracks


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file that appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
