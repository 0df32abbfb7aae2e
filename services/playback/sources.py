"""The sources of a piece: each decoded and resampled once, the latest kept within a budget."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.audio.match_table import SourceRef
from services.audio.reading import Sound
from services.audio.resampling import resample_blocks

FloatArray = NDArray[np.float32]
ReadSource = Callable[[SourceRef], Sound]
CountChannels = Callable[[SourceRef], int]

# A store far away takes its time for each.
LOOKS_AT_ONCE = 8

# Of one channel, between two checkpoints.
_BLOCK_FRAMES = 2**20


@dataclass(frozen=True)
class SourceFacts:
    """What is known of a source once it was read; kept when its samples are not."""

    sample_rate_hertz: int
    """Its own rate."""
    sample_count: int
    """Its length at its own rate."""
    channel_count: int
    """Its channels."""
    output_length_samples: int
    """Its length at the output rate, before any padding."""


class SourceCache:
    """Sources at the output rate, by index; least recently used ones go when over budget.

    A source that is needed again after it went is read again. The one in use always stays, so a
    source larger than the budget is held alone.
    """

    def __init__(
        self,
        refs: Sequence[SourceRef],
        read: ReadSource,
        *,
        sample_rate_hertz: int,
        shortest_samples: int,
        budget_bytes: int,
        count_channels: CountChannels | None = None,
        checkpoint: Callable[[], None] = lambda: None,
    ) -> None:
        """Sources shorter than `shortest_samples` at the output rate are padded with zeros.

        `count_channels` looks at a source without reading it, in several threads at once; where
        there is none, sources are read. `checkpoint` is called before each look, and while a
        source is resampled.
        """
        self._refs = refs
        self._read = read
        self._sample_rate_hertz = sample_rate_hertz
        self._shortest_samples = shortest_samples
        self._budget_bytes = budget_bytes
        self._count_channels = count_channels
        self._checkpoint = checkpoint
        self._held: OrderedDict[int, FloatArray] = OrderedDict()
        self._held_bytes = 0
        self.facts: dict[int, SourceFacts] = {}

    def samples(self, index: int) -> FloatArray:
        """Source `index` as (samples, its own channels); not to be written to."""
        held = self._held.get(index)
        if held is None:
            held = self._load(index)
            self._held[index] = held
            self._held_bytes += held.nbytes
        self._held.move_to_end(index)
        while self._held_bytes > self._budget_bytes and len(self._held) > 1:
            _, gone = self._held.popitem(last=False)
            self._held_bytes -= gone.nbytes
        return held

    def channel_counts(self, indices: Sequence[int]) -> list[int]:
        """Channels of these sources, which need not be read for that."""
        look = self._count_channels
        if look is None:
            return [self._channels_read(index) for index in indices]

        def looked_at(index: int) -> int:
            self._checkpoint()
            return look(self._refs[index])

        with ThreadPoolExecutor(LOOKS_AT_ONCE) as threads:
            return list(threads.map(looked_at, indices))

    def _channels_read(self, index: int) -> int:
        self._checkpoint()
        self.samples(index)
        return self.facts[index].channel_count

    def _load(self, index: int) -> FloatArray:
        sound = self._read(self._refs[index])
        samples = self._resampled(sound)
        self.facts[index] = SourceFacts(
            sample_rate_hertz=sound.sample_rate_hertz,
            sample_count=len(sound.samples),
            channel_count=sound.samples.shape[1],
            output_length_samples=len(samples),
        )
        missing = self._shortest_samples - len(samples)
        if missing > 0:
            samples = np.pad(samples, ((0, missing), (0, 0)))
        return samples

    def _resampled(self, sound: Sound) -> FloatArray:
        """What `resample` gives, bit for bit, channel by channel and block by block."""
        if sound.sample_rate_hertz == self._sample_rate_hertz:
            return sound.samples
        channels = [
            np.concatenate(
                list(
                    resample_blocks(
                        self._blocks(channel), sound.sample_rate_hertz, self._sample_rate_hertz
                    )
                )
            )
            for channel in sound.samples.T
        ]
        return np.stack(channels, axis=1)

    def _blocks(self, channel: FloatArray) -> Iterator[FloatArray]:
        for start in range(0, len(channel), _BLOCK_FRAMES):
            self._checkpoint()
            yield channel[start : start + _BLOCK_FRAMES]
