"""The edit list: what in a piece came from where, as JSON, for people and for import into a DAW.

One object:

    version                     1
    sample_rate_hertz           rate of the piece; output positions and lengths count at it
    sample_count                length of the piece
    channel_count               channels of the piece
    crossfade_samples           length of each fade; half of it before a segment's start
    placement                   "published" or "centered": which samples stand for a frame
    table_sample_rate_hertz     rate of the match table; matched positions count at it
    hop_length_samples          length of one frame at the table's rate
    sources                     the files heard, in the order of the match table:
        key, sha256             the stored object
        sample_rate_hertz       its own rate; source positions count at it
        sample_count            its length
        channel_count           its channels
    segments                    in the order of the piece, without gap or overlap:
        output_start_sample     where it begins in the piece
        length_samples          how long it lasts there
        source                  key of the file that sounds
        source_start_sample     what sounds first, after placement and after a lone last frame
                                shifted back to be whole
        matched_start_sample    start of the first frame as it was matched, at the table's rate
        first_frame             the predicted frame that it answers first
        frame_count             how many it answers: frames that follow each other in their file
                                are one segment
        distances               distance of each of them to what was predicted, nearest is 0
"""

from typing import Any

import orjson

from services.playback.mixer import Mixer
from services.playback.segments import Segment, rescale

VERSION = 1


def edit_list(mixer: Mixer) -> bytes:
    """The edit list of a piece that was rendered to its end, as UTF-8 JSON.

    The same piece gives the same bytes.
    """
    content: dict[str, Any] = {
        "version": VERSION,
        "sample_rate_hertz": mixer.sample_rate_hertz,
        "sample_count": mixer.sample_count,
        "channel_count": mixer.channel_count,
        "crossfade_samples": mixer.crossfade_samples,
        "placement": mixer.settings.placement.value,
        "table_sample_rate_hertz": mixer.table.sample_rate_hertz,
        "hop_length_samples": mixer.table.hop_length_samples,
        "sources": [_source(mixer, index) for index in sorted(mixer.facts)],
        "segments": [_segment(mixer, segment) for segment in mixer.segments],
    }
    return orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _source(mixer: Mixer, index: int) -> dict[str, Any]:
    ref, facts = mixer.table.sources[index], mixer.facts[index]
    return {
        "key": ref.key,
        "sha256": ref.sha256,
        "sample_rate_hertz": facts.sample_rate_hertz,
        "sample_count": facts.sample_count,
        "channel_count": facts.channel_count,
    }


def _segment(mixer: Mixer, segment: Segment) -> dict[str, Any]:
    facts = mixer.facts[segment.source_index]
    beyond = segment.first_frame + segment.frame_count
    return {
        "output_start_sample": segment.output_start_sample,
        "length_samples": segment.length_samples,
        "source": mixer.table.sources[segment.source_index].key,
        "source_start_sample": rescale(
            segment.start_in(facts.output_length_samples),
            mixer.sample_rate_hertz,
            facts.sample_rate_hertz,
        ),
        "matched_start_sample": segment.matched_start_sample,
        "first_frame": segment.first_frame,
        "frame_count": segment.frame_count,
        "distances": mixer.table.distances[segment.first_frame : beyond, 0].tolist(),
    }
