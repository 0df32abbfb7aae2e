"""What predictors learn from: sounds described once and kept, and descriptor files as they are.

Threads suffice, since decoding, resampling and Fourier transforms work without Python's lock.
"""

import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import asdict
from functools import partial
from pathlib import PureWindowsPath
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from services.audio.track import DescriptorTrack
from services.audio.track_json import read_tracks
from services.cli.corpus import AnyRecording, is_descriptor_name
from services.cli.progress import Reporter
from services.descriptor import extraction as sounds
from services.descriptor import mfcc
from services.descriptor.mfcc import ExtractionSettings
from services.errors import CancelledError, ConflictError, InvalidInputError
from services.learning.array_cache import Append, ArrayCache, Entry, Facts
from services.synth.corpus.preparation import sha256_of

PUBLISHED = ExtractionSettings()
# Raised when the same file and extraction make other tracks.
ALGORITHM = 1
# Decoders differ in how much silence they leave at the ends of a sound.
SECONDS_ALIKE = 0.1
SHARE_ROUNDED = 1e-6


def described(
    recordings: Sequence[AnyRecording],
    cache: ArrayCache,
    reporter: Reporter,
    *,
    extraction: ExtractionSettings = PUBLISHED,
    workers: int | None = None,
) -> list[DescriptorTrack]:
    """The tracks of sound files and of descriptor files, in the order of their files.

    `workers` threads make them, one a processor if not given; the answer does not depend on them.
    A sound is described with `extraction` and named as its recording; a track of a descriptor file
    is named "file.json: sound". The cache knows them by their content and all settings.

    `reporter` hears how many files are done, and what is left out and why: what cannot be read or
    described, predictions, silence, copies, and descriptors of a sound that is there itself.

    Raises InvalidInputError if nothing is left, ConflictError, naming the file, where one changes
    meanwhile, and what the cache and the recordings raise.
    """
    stopped = threading.Event()
    with ThreadPoolExecutor(workers or os.cpu_count(), "describe") as threads:
        futures = [
            threads.submit(_entry, recording, extraction, cache, stopped)
            for recording in recordings
        ]
        try:
            for done, future in enumerate(as_completed(futures), 1):
                _unless_unusable(future)
                reporter.update("describing recordings", done, len(futures))
        except BaseException:
            stopped.set()
            threads.shutdown(wait=False, cancel_futures=True)
            raise
    tracks: list[_Found] = []
    for recording, future in zip(recordings, futures, strict=True):
        entry = _unless_unusable(future)
        if isinstance(entry, str):
            reporter.say(f"left out: {entry}")
        else:
            tracks += _found(recording, entry)
    kept = _without_copies(tracks, reporter)
    if not kept:
        raise InvalidInputError(
            f"none of the {len(futures)} files can be learned from, as the lines above say"
        )
    return kept


class _Found(NamedTuple):
    """A track on its way in."""

    track: DescriptorTrack
    file_name: str
    """What the file of its sound is called."""
    from_sound: bool
    """Whether that file was described here, rather than by a descriptor file."""

    @property
    def seconds(self) -> float:
        """How long the sound lasts, by its frames."""
        track = self.track
        return track.frame_count * track.hop_length_samples / track.sample_rate_hertz


def _without_copies(tracks: Sequence[_Found], reporter: Reporter) -> list[DescriptorTrack]:
    """Each sound once, and no silence: else what is learned might be judged by its copy."""
    sounds: dict[str, list[_Found]] = {}
    for each in tracks:
        if each.from_sound:
            sounds.setdefault(each.file_name, []).append(each)
    kept: dict[bytes, DescriptorTrack] = {}
    for each in tracks:
        track = each.track
        identity = _identity(track)
        itself = [] if each.from_sound else sounds.get(each.file_name, [])
        if track.frame_count > 1 and _stands_still(track):
            reporter.say(f"left out: {track.source} is silent: all its frames are alike")
        elif any(abs(each.seconds - sound.seconds) <= SECONDS_ALIKE for sound in itself):
            reporter.say(f"left out: {track.source} describes a sound that is there itself")
        elif identity in kept:
            reporter.say(f"left out: {track.source} is a copy of {kept[identity].source}")
        else:
            kept[identity] = track
    return list(kept.values())


def _stands_still(track: DescriptorTrack) -> bool:
    # Deltas of what never changes are rounding errors.
    rounding = SHARE_ROUNDED * float(np.abs(track.values).max())
    return bool(np.allclose(track.values, track.values[0], rtol=0, atol=rounding))


def _identity(track: DescriptorTrack) -> bytes:
    told = (track.feature_names, track.sample_rate_hertz, track.hop_length_samples)
    digest = hashlib.sha256(repr(told).encode())
    digest.update(np.ascontiguousarray(track.values).data)
    return digest.digest()


def _found(recording: AnyRecording, entry: Entry) -> Iterator[_Found]:
    """The tracks of one file; their values lie where the cache has them."""
    facts, start = entry.facts, 0
    descriptors = is_descriptor_name(recording.name)
    for source, frames in zip(facts["sources"], facts["frames"], strict=True):
        track = DescriptorTrack(
            feature_names=tuple(facts["features"]),
            values=entry.array[start : start + frames],
            sample_rate_hertz=facts["rate"],
            hop_length_samples=facts["hop"],
            source=f"{recording.name}: {source}" if descriptors else recording.name,
        )
        # Names may be whole paths, of any system.
        file_name = PureWindowsPath(source).name if descriptors else recording.file_name
        yield _Found(track, file_name, from_sound=not descriptors)
        start += frames


def _unless_unusable(future: "Future[Entry]") -> Entry | str:
    """The entry, or why there is none."""
    try:
        return future.result()
    except InvalidInputError as error:
        return error.message


def _entry(
    recording: AnyRecording,
    extraction: ExtractionSettings,
    cache: ArrayCache,
    stopped: threading.Event,
) -> Entry:
    """All frames of one file, one sound after the other."""
    name = recording.name
    key: dict[str, Any] = {"algorithm": ALGORITHM, "sha256": recording.sha256}
    read: Callable[[BinaryIO], list[DescriptorTrack]]
    if is_descriptor_name(name):
        read = partial(read_tracks, source=name, of_sounds_alone=True)
    else:
        key |= {"mfcc": mfcc.ALGORITHM, "extraction": asdict(extraction)}
        read = partial(_describe, name=name, settings=extraction, stopped=stopped)

    def make(append: Append) -> Facts:
        with recording.open() as file:
            tracks = read(file)
            # Else the cache would take another file for this one, for good.
            if sha256_of(file) != recording.sha256:
                raise ConflictError(
                    f"{name} was changed while it was read: start again when it is whole",
                    culprit=name,
                )
        for track in tracks:
            append(track.values)
        return {
            "sources": [track.source for track in tracks],
            "frames": [track.frame_count for track in tracks],
            "features": tracks[0].feature_names,
            "rate": tracks[0].sample_rate_hertz,
            "hop": tracks[0].hop_length_samples,
        }

    return cache.get("tracks", key, make)


def _describe(
    file: BinaryIO, *, name: str, settings: ExtractionSettings, stopped: threading.Event
) -> list[DescriptorTrack]:
    def checkpoint() -> None:
        if stopped.is_set():
            raise CancelledError(f"{name}: preparation was stopped")

    with sounds.described(file, name=name, settings=settings, checkpoint=checkpoint) as description:
        return [description.track()]
