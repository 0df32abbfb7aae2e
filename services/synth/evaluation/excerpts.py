"""Excerpts: as much of a corpus as is worth the time that a judgement takes."""

from collections.abc import Sequence

import numpy as np

from services.errors import InvalidInputError
from services.synth.corpus.clips import Clip


def excerpts(
    clips: Sequence[Clip], sample_rate_hertz: int, *, seconds_each: float, seconds_in_all: float
) -> list[Clip]:
    """The beginnings of clips, each of at most `seconds_each`, together `seconds_in_all`.

    Where that is less than there is, the clips are taken evenly from the whole list, one at least.
    Raises InvalidInputError if there are no clips.
    """
    if not clips:
        raise InvalidInputError("no recordings to judge by")
    longest = max(round(seconds_each * sample_rate_hertz), 1)
    cut = [clip.part(0, min(longest, clip.samples.size)) for clip in clips]
    total = sum(clip.samples.size for clip in cut)
    allowed = seconds_in_all * sample_rate_hertz
    if total <= allowed:
        return cut
    count = max(int(len(cut) * allowed / total), 1)
    chosen = np.linspace(0, len(cut) - 1, count).round().astype(int)
    return [cut[number] for number in chosen]


def seconds_of(clips: Sequence[Clip], sample_rate_hertz: int) -> float:
    """How long they are together."""
    return sum(clip.samples.size for clip in clips) / sample_rate_hertz
