"""A folder of a user's own recordings, read for training and for upload."""

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING

from services.errors import InvalidInputError, NotFoundError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# What the store refuses in names; lone surrogates stand for names that are not UTF-8.
UNSTORABLE = re.compile(r"[/\\\x00-\x1f\x7f\ud800-\udfff]")
# File systems take 255; partial files, numbers and ".json" need some room.
MAX_NAME_BYTES = 200


@dataclass(frozen=True)
class Recording:
    """One sound file; `name` is unique in its folder and fit to be a database's file name."""

    path: Path
    name: str

    @cached_property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of the file, as it was when this was first asked for."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def recordings(folder: Path) -> list[Recording]:
    """The sound files below `folder`, by name, whatever the case of their extension.

    Hidden files are left out; files of subfolders are named "subfolder - file", and numbered if
    that is another file's name. One that cannot be stored under its name gets one like it. Raises
    NotFoundError, naming the folder, if it does not exist or holds none.
    """
    from services.audio.reading import AUDIO_EXTENSIONS, is_audio_name

    if not folder.is_dir():
        raise NotFoundError(
            f"{folder} is not a folder: give one of recordings", culprit=str(folder)
        )
    found: list[Recording] = []
    taken: set[str] = set()
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        hidden = any(part.startswith(".") for part in parts)
        if path.is_file() and not hidden and is_audio_name(path.name):
            stem = " - ".join(parts).removesuffix(path.suffix)
            name = _free(storable(stem) + path.suffix, taken)
            taken.add(name)
            found.append(Recording(path, name))
    if not found:
        raise NotFoundError(
            f"{folder} holds no sound files: put some in ({', '.join(sorted(AUDIO_EXTENSIONS))})",
            culprit=str(folder),
        )
    return found


def storable(name: str) -> str:
    """The name, or one like it with a hash of it, if a store cannot hold it or it is too long."""
    encoded = name.encode(errors="surrogatepass")
    if len(encoded) <= MAX_NAME_BYTES and not UNSTORABLE.search(name):
        return name
    ending = f"-{hashlib.sha256(encoded).hexdigest()[:8]}"
    fitting = UNSTORABLE.sub("_", name).encode()[: MAX_NAME_BYTES - len(ending)]
    return fitting.decode(errors="ignore") + ending


def _free(name: str, taken: set[str]) -> str:
    stem, dot, extension = name.rpartition(".")
    numbered = (f"{stem} ({number}){dot}{extension}" for number in count(2))
    return next(each for each in chain([name], numbered) if each not in taken)


def fingerprint(corpus: list[Recording]) -> str:
    """Hexadecimal SHA-256 of all names and contents."""
    total = hashlib.sha256()
    for recording in corpus:
        total.update(f"{recording.name}\0{recording.sha256}\n".encode())
    return total.hexdigest()


def readable(
    corpus: list[Recording], sample_rate_hertz: int, warn: Callable[[str], None]
) -> Iterator[tuple[Recording, "NDArray[np.float32]"]]:
    """Each recording with its samples, (n,) float32 mono at that rate.

    One that cannot be read is named to `warn` and left out; raises InvalidInputError if all are.
    """
    from services.audio.reading import read_audio
    from services.audio.resampling import resample, to_mono
    from services.errors import UnreadableAudioError

    left = 0
    for recording in corpus:
        try:
            sound = read_audio(recording.path, name=recording.name)
        except UnreadableAudioError as error:
            warn(f"left out: {error.message}")
            continue
        left += 1
        mono = to_mono(sound.samples)[:, None]
        yield recording, resample(mono, sound.sample_rate_hertz, sample_rate_hertz)[:, 0]
    if not left:
        raise InvalidInputError("none of the recordings can be read: see the lines above")
