"""The plan of a piece: which stretch of which source sounds at which output sample.

Follows the published engine in one thing, that every predicted frame sounds for one hop of its
nearest match. Unlike there, positions are exact: frame i begins at output sample
round(i x hop x output rate / table rate), so that n frames last n hops however long the piece is.
"""

import math
from dataclasses import dataclass
from enum import Enum

import numpy as np

from services.audio.match_table import MatchTable
from services.errors import InvalidInputError

PUBLISHED_CROSSFADE_SECONDS = 0.022


class Placement(Enum):
    """Which samples stand for a frame."""

    PUBLISHED = "published"
    """One hop from the frame's start sample on."""
    CENTERED = "centered"
    """One hop around the frame's start sample, where a centred descriptor frame looks."""


@dataclass(frozen=True)
class RenderSettings:
    """How segments are joined. Raises InvalidInputError, naming the field, for what cannot be."""

    crossfade_seconds: float = PUBLISHED_CROSSFADE_SECONDS
    """Length of the fade between segments; held to one hop where it is longer. 0 cuts hard."""
    placement: Placement = Placement.PUBLISHED
    """Which samples stand for a frame."""
    sample_rate_hertz: int = 0
    """Rate of the piece; 0 means that of the match table."""
    channel_count: int = 0
    """Channels of the piece; 0 means the most that any source heard in it has."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.crossfade_seconds) and self.crossfade_seconds >= 0):
            raise InvalidInputError(
                f"a crossfade of {self.crossfade_seconds} s cannot be: give 0 or more",
                culprit="crossfade",
            )
        for name in ("sample_rate_hertz", "channel_count"):
            if getattr(self, name) < 0:
                raise InvalidInputError(
                    f"{name} of {getattr(self, name)} cannot be: give 0 or more", culprit=name
                )


@dataclass(frozen=True)
class Timeline:
    """Table samples and frames on the sample grid of the output, by exact integer arithmetic."""

    table_rate_hertz: int
    hop_length_samples: int
    output_rate_hertz: int

    def position(self, table_samples: int) -> int:
        """The output sample at which `table_samples`, counted at the table's rate, falls."""
        return rescale(table_samples, self.table_rate_hertz, self.output_rate_hertz)

    def boundary(self, frame: int) -> int:
        """The output sample at which `frame` begins, and the one before it ends."""
        return self.position(frame * self.hop_length_samples)

    @property
    def shortest_hop(self) -> int:
        """The fewest output samples between two boundaries: rounding spreads one sample."""
        return self.hop_length_samples * self.output_rate_hertz // self.table_rate_hertz

    @property
    def longest_hop(self) -> int:
        """The most output samples between two boundaries."""
        return -(-self.hop_length_samples * self.output_rate_hertz // self.table_rate_hertz)

    def crossfade_samples(self, seconds: float) -> int:
        """A fade of `seconds` in output samples, at most one hop, so that fades never overlap."""
        return min(round(seconds * self.output_rate_hertz), self.shortest_hop)


def rescale(samples: int, from_rate: int, to_rate: int) -> int:
    """`samples` at `from_rate` counted at `to_rate`, rounded to nearest, halves up."""
    return (2 * samples * to_rate + from_rate) // (2 * from_rate)


@dataclass(frozen=True, slots=True)
class Segment:
    """One stretch of one source, for as many frames as follow each other in it without a seam."""

    source_index: int
    """Into the table's sources."""
    first_frame: int
    """The first frame of the piece that it answers."""
    frame_count: int
    """How many it answers."""
    matched_start_sample: int
    """Start sample of the first frame, as matched, at the table's rate."""
    output_start_sample: int
    """Where it begins in the piece; half a crossfade sounds before."""
    length_samples: int
    """How long it lasts in the piece, at the output rate."""
    source_position: int
    """What sounds at its beginning: placed start, at the output rate."""

    def start_in(self, source_length: int) -> int:
        """The source sample, at the output rate, that sounds at the segment's beginning.

        A lone frame that the source, `source_length` output samples long, ends within shifts back
        to be whole. One that goes on from the frame before it does not: it would need a seam.
        """
        if self.frame_count > 1:
            return self.source_position
        return min(self.source_position, max(source_length - self.length_samples, 0))


def timeline_of(table: MatchTable, settings: RenderSettings) -> Timeline:
    """The timeline that `settings` ask for."""
    return Timeline(
        table.sample_rate_hertz,
        table.hop_length_samples,
        settings.sample_rate_hertz or table.sample_rate_hertz,
    )


def plan(table: MatchTable, settings: RenderSettings) -> list[Segment]:
    """The segments of the piece, in order, from the nearest match of each frame.

    Frames of one source whose placed starts advance by exactly one hop become one segment.
    Raises InvalidInputError if the table is empty, or too short for a single sample of output.
    """
    timeline = timeline_of(table, settings)
    if timeline.boundary(table.frame_count) == 0:
        raise InvalidInputError(
            f"match table: {table.frame_count} frames of {table.hop_length_samples} samples at "
            f"{table.sample_rate_hertz} Hz leave nothing to render at "
            f"{timeline.output_rate_hertz} Hz",
            culprit="matches",
        )
    sources = table.source_indices[:, 0]
    matched = table.start_samples[:, 0]
    placed = matched
    if settings.placement is Placement.CENTERED:
        half_hop = np.uint64(table.hop_length_samples // 2)
        placed = matched - np.minimum(matched, half_hop)

    hop = np.uint64(table.hop_length_samples)
    goes_on = (sources[1:] == sources[:-1]) & (placed[1:] == placed[:-1] + hop)
    firsts = np.concatenate(([0], np.flatnonzero(~goes_on) + 1)).tolist()
    segments = []
    for first, beyond in zip(firsts, [*firsts[1:], table.frame_count], strict=True):
        begin = timeline.boundary(first)
        segments.append(
            Segment(
                source_index=int(sources[first]),
                first_frame=first,
                frame_count=beyond - first,
                matched_start_sample=int(matched[first]),
                output_start_sample=begin,
                length_samples=timeline.boundary(beyond) - begin,
                source_position=timeline.position(int(placed[first])),
            )
        )
    return segments
