"""The recordings of a folder or of an audio database, for training and for upload."""

import hashlib
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property, partial
from io import BufferedReader
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from services.cli.progress import Reporter
from services.errors import NotFoundError, UnreadableAudioError
from services.runtime.object_store.port import ObjectStore, checked_key

if TYPE_CHECKING:
    from services.learning.array_cache import ArrayCache
    from services.synth.corpus.clips import Clip

AUDIO = "audio/"
DESCRIPTORS = ".json"
DATABASES_SHOWN = 10
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
        with self.open() as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @property
    def file_name(self) -> str:
        """What the file is called where it lies."""
        return self.path.name

    def open(self) -> BufferedReader:
        """The file; UnreadableAudioError, naming it, if it cannot be opened."""
        try:
            return self.path.open("rb")
        except OSError as error:
            raise UnreadableAudioError(
                f"{self.name} cannot be opened: {error.strerror}", culprit=self.name
            ) from error


@dataclass(frozen=True)
class StoredRecording:
    """One sound file of an audio database; `name` is its own there."""

    store: ObjectStore
    key: str
    name: str
    sha256: str

    @property
    def file_name(self) -> str:
        """What the file is called where it lies."""
        return self.name

    def open(self) -> AbstractContextManager[BinaryIO]:
        """The file, checked; CorruptObjectError, naming the key, if it is damaged."""
        return self.store.open(self.key, sha256=self.sha256)


AnyRecording = Recording | StoredRecording


@dataclass(frozen=True)
class Corpus:
    """What is learned from, wherever it lies: at least one recording, by name."""

    name: str
    """Of the folder or the database; fit to be part of a key."""
    place: str
    """Where it is, for people."""
    recordings: Sequence[AnyRecording]

    @cached_property
    def fingerprint(self) -> str:
        """Hexadecimal SHA-256 of all names and contents: the same for a folder and its upload."""
        return fingerprint(self.recordings)


def folder_corpus(folder: Path, *, descriptors: bool = False) -> Corpus:
    """The recordings below a folder, and if `descriptors` its descriptor files.

    Raises NotFoundError, naming it, if there are none.
    """
    found = recordings(folder, descriptors=descriptors)
    return Corpus(storable(folder.resolve().name), str(folder), found)


def database_corpus(store: ObjectStore, database: str) -> Corpus:
    """The recordings of an audio database of the store: the sounds right below audio/<database>/.

    Raises NotFoundError, naming the databases that there are, if there is none of this name.
    """
    from services.audio.reading import is_audio_name

    prefix = checked_key(f"{AUDIO}{database}") + "/"
    keys = [
        key for key in store.keys(prefix) if "/" not in key[len(prefix) :] and is_audio_name(key)
    ]
    # Deleted meanwhile: then it is not there.
    found = [
        StoredRecording(store, each.key, each.key[len(prefix) :], each.sha256)
        for each in store.stats(keys)
        if each
    ]
    if not found:
        raise NotFoundError(
            f"the store has no audio database {database!r} with sound files; it has: "
            f"{_databases(store)}",
            culprit=database,
        )
    return Corpus(database, f"audio database {database}", found)


def _databases(store: ObjectStore) -> str:
    names = sorted({key.split("/")[1] for key in store.keys(AUDIO)})
    shown = ", ".join(names[:DATABASES_SHOWN]) + (", …" if len(names) > DATABASES_SHOWN else "")
    return shown or "none"


def is_descriptor_name(name: str) -> bool:
    """Whether a file of this name is taken for a descriptor file: by its extension, in any case."""
    return name.lower().endswith(DESCRIPTORS)


def recordings(folder: Path, *, descriptors: bool = False) -> list[Recording]:
    """The sound files below `folder`, by name, whatever the case of their extension.

    If `descriptors`, its descriptor files are among them. Hidden files are left out; files of
    subfolders are named "subfolder - file", and numbered if that is another file's name. One that
    cannot be stored under its name gets one like it. Raises NotFoundError, naming the folder, if it
    does not exist or holds none.
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
        wanted = is_audio_name(path.name) or (descriptors and is_descriptor_name(path.name))
        if path.is_file() and not hidden and wanted:
            stem = " - ".join(parts).removesuffix(path.suffix)
            name = _free(storable(stem) + path.suffix, taken)
            taken.add(name)
            found.append(Recording(path, name))
    if not found:
        kinds = "neither sound nor descriptor" if descriptors else "no sound"
        extensions = ", ".join(sorted(AUDIO_EXTENSIONS) + [DESCRIPTORS] * descriptors)
        raise NotFoundError(
            f"{folder} holds {kinds} files: put some in ({extensions})", culprit=str(folder)
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


def fingerprint(corpus: Sequence[AnyRecording]) -> str:
    """Hexadecimal SHA-256 of all names and contents, in the order of the names."""
    total = hashlib.sha256()
    for recording in sorted(corpus, key=lambda each: each.name):
        total.update(f"{recording.name}\0{recording.sha256}\n".encode())
    return total.hexdigest()


def prepared(
    corpus: Corpus, sample_rate_hertz: int, cache: "ArrayCache", reporter: Reporter
) -> "list[Clip]":
    """The audible recordings as clips at this rate, decoded once and then found in the cache.

    What is left out is told. Raises what `prepare_clips` raises, for one InvalidInputError if
    nothing is left.
    """
    from services.synth.corpus.preparation import prepare_clips

    return prepare_clips(
        corpus.recordings,
        sample_rate_hertz,
        cache=cache,
        tell=partial(reporter.update, "preparing recordings"),
        warn=reporter.say,
    )
