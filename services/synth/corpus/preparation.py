"""Recordings made ready to learn from: decoded, mixed to mono, resampled once, and kept.

Threads suffice, since libsndfile, soxr and numpy work without Python's lock. Each recording goes
block by block from its file into the cache's, so memory does not grow with the corpus.
"""

import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager
from typing import BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from services.audio.reading import open_audio
from services.audio.resampling import resample_blocks, to_mono
from services.errors import CancelledError, ConflictError, InvalidInputError, UnreadableAudioError
from services.learning.array_cache import Append, ArrayCache, Facts
from services.synth.corpus.clips import Clip

# Raised when the same recording and rate make other samples.
ALGORITHM = 1
BLOCK_BYTES = 1 << 20


class Source(Protocol):
    """A recording that has not been decoded yet."""

    @property
    def name(self) -> str:
        """Its name, unique in its corpus."""

    @property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of its file; what `open` raises comes out here too."""

    def open(self) -> AbstractContextManager[BinaryIO]:
        """The file, seekable, in any thread; UnreadableAudioError if it cannot be opened."""


def prepare_clips(
    sources: Sequence[Source],
    sample_rate_hertz: int,
    *,
    cache: ArrayCache | None = None,
    workers: int | None = None,
    tell: Callable[[int, int], None] = lambda done, total: None,  # noqa: ARG005 - tells nobody
    warn: Callable[[str], None] = lambda text: None,  # noqa: ARG005 - warns nobody
) -> list[Clip]:
    """The audible recordings as mono clips at this rate, in the order of their sources.

    `workers` threads prepare them, one a processor if not given; the answer does not depend on
    them. Without a cache all lie in memory. `tell` hears how many of how many are done, and `warn`
    what is left out, and why: files that cannot be read, silent ones, and copies.

    Raises InvalidInputError if nothing is left, ConflictError, naming the file, where one changes
    meanwhile, and what the cache and the sources raise.
    """
    kept = cache or ArrayCache(None)
    stopped = threading.Event()
    with ThreadPoolExecutor(workers or os.cpu_count(), "prepare") as threads:
        futures = [
            threads.submit(_prepare, source, sample_rate_hertz, kept, stopped) for source in sources
        ]
        try:
            for done, future in enumerate(as_completed(futures), 1):
                _unless_unreadable(future)
                tell(done, len(futures))
        except BaseException:
            stopped.set()
            threads.shutdown(wait=False, cancel_futures=True)
            raise
    clips: dict[str, Clip] = {}
    for future in futures:
        clip = _unless_unreadable(future)
        if isinstance(clip, str):
            warn(f"left out: {clip}")
        elif not clip.peak:
            warn(f"left out: {clip.name} is silent")
        elif clip.identity in clips:
            # Else what is learned might be judged by its copy.
            warn(f"left out: {clip.name} is a copy of {clips[clip.identity].name}")
        else:
            clips[clip.identity] = clip
    if not clips:
        raise InvalidInputError(
            f"none of the {len(futures)} recordings can be learned from: each is unreadable or "
            "silent, as the lines above say"
        )
    return list(clips.values())


def sha256_of(file: BinaryIO) -> str:
    """Hexadecimal SHA-256 of all that is in a file."""
    file.seek(0)
    digest = hashlib.sha256()
    while block := file.read(BLOCK_BYTES):
        digest.update(block)
    return digest.hexdigest()


def _unless_unreadable(future: Future[Clip]) -> Clip | str:
    """The clip, or why there is none."""
    try:
        return future.result()
    except UnreadableAudioError as error:
        return error.message


def _prepare(
    source: Source, sample_rate_hertz: int, cache: ArrayCache, stopped: threading.Event
) -> Clip:
    key = {"algorithm": ALGORITHM, "sha256": source.sha256, "rate": sample_rate_hertz}

    def make(append: Append) -> Facts:
        peak = 0.0
        with source.open() as file:
            for block in _mono(file, source.name, sample_rate_hertz):
                if stopped.is_set():
                    raise CancelledError(f"{source.name}: preparation was stopped")
                peak = max(peak, float(np.abs(block).max(initial=0)))
                append(block)
            # Else the cache would take another sound for this one, for good.
            if sha256_of(file) != source.sha256:
                raise ConflictError(
                    f"{source.name} was changed while it was read: start again when it is whole",
                    culprit=source.name,
                )
        return {"peak": peak}

    entry = cache.get("clips", key, make)
    return Clip(
        source.name,
        entry.array,
        origin=f"{ALGORITHM}:{sample_rate_hertz}:{source.sha256}",
        known_peak=entry.facts["peak"],
    )


def _mono(file: BinaryIO, name: str, sample_rate_hertz: int) -> Iterator[NDArray[np.float32]]:
    with open_audio(file, name=name) as stream:
        blocks = (to_mono(block) for block in stream.blocks())
        for block in resample_blocks(blocks, stream.sample_rate_hertz, sample_rate_hertz):
            # Resampling overshoots, and so do floats in files.
            yield block.clip(-1, 1)
