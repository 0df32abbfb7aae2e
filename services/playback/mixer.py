"""The mixer: overlap-add of matched segments into one sound, block by block.

The published engine appends pydub segments, fade and all, and so loses half of every hop. Here
every segment sounds for exactly its frames and reaches half a crossfade beyond both ends; where a
file has no more to give, its first or last sample is held. The first segment is not faded in and
the last not faded out, so a file that is matched frame by frame comes back bit for bit.

The fade is linear, as published, and its gains sum to one. Neighbouring segments are picked to
sound alike and often come from one recording; between such, equal-power gains would bulge by 3 dB
and clip, while a linear fade is never louder than the louder of the two. Between unrelated sounds
it dips by 3 dB for some milliseconds, which is the smaller harm.
"""

from collections.abc import Callable, Iterator
from functools import cached_property

import numpy as np

from services.audio.match_table import MatchTable
from services.errors import InvalidInputError
from services.playback.segments import RenderSettings, Segment, plan, timeline_of
from services.playback.sources import (
    CountChannels,
    FloatArray,
    ReadSource,
    SourceCache,
    SourceFacts,
)

DEFAULT_BLOCK_FRAMES = 16_384
DEFAULT_CACHE_BYTES = 512 * 2**20


class Mixer:
    """One piece: its plan, its sources and its samples.

    `read` decodes one source; it is called once for each source heard, and again only for those
    that fell out of the cache of `cache_bytes`. `count_channels` tells a source's channels without
    that; where it is not given, they are read. `checkpoint` is called at every segment and block,
    and while sources are resampled; what it raises ends the work. Not for use by several threads
    at once.
    """

    def __init__(
        self,
        table: MatchTable,
        read: ReadSource,
        settings: RenderSettings | None = None,
        *,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        checkpoint: Callable[[], None] = lambda: None,
        count_channels: CountChannels | None = None,
    ) -> None:
        """Reads nothing yet. Raises InvalidInputError if the table is empty."""
        self.table = table
        self.settings = settings or RenderSettings()
        self.timeline = timeline_of(table, self.settings)
        self.segments = plan(table, self.settings)
        self.peak = 0.0
        """Largest magnitude that render has yielded, before any clipping; 1 is full scale."""
        self._checkpoint = checkpoint
        self._sources = SourceCache(
            table.sources,
            read,
            sample_rate_hertz=self.timeline.output_rate_hertz,
            shortest_samples=self.timeline.longest_hop,
            budget_bytes=cache_bytes,
            count_channels=count_channels,
            checkpoint=checkpoint,
        )

    @property
    def sample_rate_hertz(self) -> int:
        """Rate of the piece."""
        return self.timeline.output_rate_hertz

    @property
    def sample_count(self) -> int:
        """Length of the piece: exactly its frames' hops."""
        return self.timeline.boundary(self.table.frame_count)

    @property
    def crossfade_samples(self) -> int:
        """Length of the fades, at most one hop."""
        return self.timeline.crossfade_samples(self.settings.crossfade_seconds)

    @property
    def source_count(self) -> int:
        """Sources heard."""
        return len({segment.source_index for segment in self.segments})

    @property
    def facts(self) -> dict[int, SourceFacts]:
        """What is known of the sources read so far, by index; complete after a whole render."""
        return self._sources.facts

    @cached_property
    def channel_count(self) -> int:
        """Channels of the piece; looks at every source heard if the settings leave it open."""
        if self.settings.channel_count:
            return self.settings.channel_count
        heard = dict.fromkeys(segment.source_index for segment in self.segments)
        return max(self._sources.channel_counts(list(heard)))

    def render(self, block_frames: int = DEFAULT_BLOCK_FRAMES) -> Iterator[FloatArray]:
        """Yields the piece as float32 blocks (block_frames, channels), the last one shorter.

        The samples do not depend on `block_frames`. Raises what `read` raises, and
        InvalidInputError, naming source and frame, for a match beyond its source's end.
        """
        block = np.empty((block_frames, self.channel_count), np.float32)
        filled = 0
        for piece in self._pieces(block_frames):
            taken = 0
            while taken < len(piece):
                count = min(block_frames - filled, len(piece) - taken)
                block[filled : filled + count] = piece[taken : taken + count]
                filled += count
                taken += count
                if filled == block_frames:
                    yield self._measured(block)
                    block, filled = np.empty_like(block), 0
        if filled:
            yield self._measured(block[:filled])

    def _pieces(self, most_frames: int) -> Iterator[FloatArray]:
        fade = self.crossfade_samples
        before, after = fade // 2, fade - fade // 2
        gain = ((np.arange(fade, dtype=np.float32) + 0.5) / max(fade, 1))[:, np.newaxis]
        tail: FloatArray | None = None
        for segment in self.segments:
            self._checkpoint()
            source = self._sources.samples(segment.source_index)
            self._check_starts(segment)
            start = segment.start_in(self.facts[segment.source_index].output_length_samples)
            begin, end = 0, segment.length_samples
            if tail is not None:
                head = self._take(source, start - before, fade)
                # This form, not (1 - g) tail + g head: equal sounds pass through unchanged.
                yield tail + gain * (head - tail)
                begin = after
            is_last = segment is self.segments[-1]
            if not is_last:
                end -= before
            for offset in range(begin, end, most_frames):
                yield self._take(source, start + offset, min(most_frames, end - offset))
            if not is_last:
                # Copied, so that the source itself may go while its tail waits.
                tail = self._take(source, start + end, fade).copy()

    def _take(self, source: FloatArray, start: int, count: int) -> FloatArray:
        return with_channels(held_slice(source, start, count), self.channel_count)

    def _check_starts(self, segment: Segment) -> None:
        facts = self.facts[segment.source_index]
        rate = self.table.sample_rate_hertz
        # A frame may start at the very end: centred frames do, when hops divide the length.
        end = -(-facts.sample_count * rate // facts.sample_rate_hertz)
        hop = self.table.hop_length_samples
        last_start = int(self.table.start_samples[segment.first_frame + segment.frame_count - 1, 0])
        if last_start <= end:
            return
        beyond = max(0, (end - segment.matched_start_sample) // hop + 1)
        frame = segment.first_frame + beyond
        key = self.table.sources[segment.source_index].key
        raise InvalidInputError(
            f"{key}: frame {frame} is matched to sample "
            f"{int(self.table.start_samples[frame, 0])}, but the file ends at sample {end} "
            f"({rate} Hz): was it replaced after it was indexed?",
            culprit=key,
        )

    def _measured(self, block: FloatArray) -> FloatArray:
        self._checkpoint()
        self.peak = max(self.peak, float(np.abs(block).max()))
        return block


def held_slice(samples: FloatArray, start: int, count: int) -> FloatArray:
    """`count` samples from `start` on; the first and last sample are held beyond the ends."""
    if start >= 0 and start + count <= len(samples):
        return samples[start : start + count]
    return samples[np.clip(np.arange(start, start + count), 0, len(samples) - 1)]


def with_channels(samples: FloatArray, channel_count: int) -> FloatArray:
    """(samples, any channels) as (samples, channel_count): channels wrap round.

    To more channels, output j copies input j modulo the inputs; to fewer, output j is the mean of
    the inputs that are j modulo the outputs. So mono is copied to all, and mono the mean of all.
    """
    given = samples.shape[1]
    if given == channel_count:
        return samples
    if given < channel_count:
        return samples[:, np.arange(channel_count) % given]
    return np.stack(
        [samples[:, channel::channel_count].mean(axis=1) for channel in range(channel_count)],
        axis=1,
    )
