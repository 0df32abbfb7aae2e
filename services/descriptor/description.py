"""A description: the descriptor track of one sound of any length, in the memory of a block."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np

from services.audio.json_columns import NotColumnsError, numbers, read_columns, strings
from services.audio.statistics import FeatureStatistics
from services.audio.track import DescriptorTrack
from services.descriptor.mfcc import FEATURE_NAMES, ExtractionSettings, deltas_are_zero
from services.descriptor.spool import FloatArray, Spool
from services.errors import CorruptObjectError


class Description:
    """A track (services.audio.track.Track) over a spool of its features."""

    feature_names = FEATURE_NAMES

    def __init__(self, source: str, settings: ExtractionSettings, features: Spool) -> None:
        self.source = source
        self.sample_rate_hertz = settings.sample_rate_hertz
        self.hop_length_samples = settings.hop_length
        self._features = features

    @property
    def frame_count(self) -> int:
        """Number of frames."""
        return self._features.frame_count

    @property
    def deltas_are_zero(self) -> bool:
        """Whether the sound is too short for derivatives."""
        return deltas_are_zero(self.frame_count)

    @property
    def values(self) -> FloatArray:
        """All frames, (frames, 39) float32: 24 MB an hour."""
        return np.concatenate(list(self._features.rows()))

    def column(self, feature: int) -> Iterator[FloatArray]:
        """One feature of all frames, in pieces (n,)."""
        return self._features.feature(feature)

    def statistics(self) -> FeatureStatistics:
        """The moments of all frames, bit for bit those of the whole track."""
        return FeatureStatistics.of_blocks(FEATURE_NAMES, self._features.rows)

    def track(self) -> DescriptorTrack:
        """The whole track."""
        return DescriptorTrack(
            FEATURE_NAMES,
            self.values,
            self.sample_rate_hertz,
            self.hop_length_samples,
            self.source,
        )


@contextmanager
def stored_description(
    file: BinaryIO,
    *,
    key: str,
    source: str,
    settings: ExtractionSettings,
    checkpoint: Callable[[], None] = lambda: None,
) -> Iterator[Description]:
    """What was stored of the sound `source`, read back from its descriptor file.

    Raises CorruptObjectError, naming `key`, if the file is not one that was written for it.
    """
    with Spool(len(FEATURE_NAMES), checkpoint) as features:
        description = Description(source, settings, features)
        try:
            _refill(file, description, features)
        except NotColumnsError as error:
            raise CorruptObjectError(
                f"{key}: is no longer the descriptor file that was stored ({error}); delete it, "
                "and it is made again",
                culprit=key,
            ) from error
        yield description


def _refill(file: BinaryIO, expected: Description, features: Spool) -> None:
    """Fills `features` from a file of just this layout; NotColumnsError if it has another."""
    single = {
        "_sample_rate": expected.sample_rate_hertz,
        "_hop_length": expected.hop_length_samples,
    }
    names, lengths = [], set()
    for name, column in read_columns(file):
        names.append(name)
        if name in single:
            fits = column == single[name]
        elif name == "_id":
            counted = Counter(identity for piece in strings(name, column) for identity in piece)
            fits = set(counted) == {expected.source}
            lengths.add(counted.total())
        elif name == "_sample":
            count = 0
            fits = True
            for piece in numbers(name, column, np.float64):
                rows = np.arange(count, count + len(piece))
                fits &= bool((piece == rows * expected.hop_length_samples).all())
                count += len(piece)
            lengths.add(count)
        else:
            fits = name in FEATURE_NAMES
            if fits:
                pieces = numbers(name, column, np.float32)
                lengths.add(features.fill_feature(FEATURE_NAMES.index(name), pieces))
        if not fits:
            raise NotColumnsError(f"{name} does not fit")
    if names != ["_id", "_sample", *FEATURE_NAMES, *single] or len(lengths) != 1:
        raise NotColumnsError("columns are missing, or of different lengths")
