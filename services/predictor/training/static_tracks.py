"""Tracks of the static coefficients alone, for a network that is not shown their deltas."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from services.audio.track import DescriptorTrack
from services.errors import InvalidInputError
from services.predictor.deltas import names_with_deltas, statics_of


def without_deltas(tracks: Sequence[DescriptorTrack]) -> list[DescriptorTrack]:
    """The tracks with their static coefficients alone, by number.

    Raises InvalidInputError if their features are no MFCCs with deltas and delta-deltas.
    """
    if not tracks:
        return []
    names = tracks[0].feature_names
    statics = statics_of(names)
    if not statics:
        raise InvalidInputError(
            "deltas can be computed of MFCCs alone: coefficients, their deltas and their "
            f"delta-deltas, numbered through; these features are {', '.join(names)}: choose "
            "deltas 'predicted'",
            culprit="deltas",
        )
    return [_cut(track, statics) for track in tracks]


def _cut(track: DescriptorTrack, statics: Sequence[str]) -> DescriptorTrack:
    whole = track.ordered(names_with_deltas(statics))
    values = np.ascontiguousarray(whole.values[:, : len(statics)])
    return replace(whole, feature_names=tuple(statics), values=values)
