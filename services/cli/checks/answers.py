"""What is predicted: as many frames as asked for, in the columns of the window."""

import numpy as np
from demiurge.audio.v1 import audio_pb2

from services.cli.checks.outcome import Broken, NotApplicable
from services.cli.checks.subject import STEPS, Subject, joined, rows, same, summary
from services.runtime.messages import MAX_INLINE_BYTES


def steps(subject: Subject) -> None:
    """An answer has exactly `steps` frames, be it one, some or more than fit into one track."""
    wanted = {1, min(STEPS, subject.described.max_steps)}
    for count in sorted(wanted):
        request = subject.request(steps=count)
        _frames(len(subject.values(request)), count, summary(request))
    if subject.described.max_steps > subject.frames_inline:
        count = subject.frames_inline + 1
        _frames(len(joined(subject.long_answer)), count, f"{count} steps")


def _frames(came: int, wanted: int, asked: str) -> None:
    if came != wanted:
        raise Broken(asked, f"{came} frames")


def pieces(subject: Subject) -> None:
    """No track of an answer holds more than 1 MiB; longer answers are several tracks."""
    if subject.described.max_steps <= subject.frames_inline:
        raise NotApplicable(f"max_steps is {subject.described.max_steps}, which fit into one track")
    tracks = subject.long_answer.tracks
    largest = max((len(track.values) for track in tracks), default=0)
    if largest > MAX_INLINE_BYTES:
        raise Broken(f"{subject.frames_inline + 1} steps", f"a track of {largest} bytes")


def finite(subject: Subject) -> None:
    """Predicted values are finite numbers."""
    request = subject.request()
    if not np.isfinite(subject.values(request)).all():
        raise Broken(summary(request), "values that are not finite")


def settings_kept(subject: Subject) -> None:
    """Rate, hop and features of an answer are those of its window."""
    request = subject.request()
    for track in subject.predict(request).tracks:
        for name in ("sample_rate_hertz", "hop_length_samples", "feature_names"):
            told, wanted = getattr(track, name), getattr(request.window, name)
            if told != wanted:
                raise Broken(f"{name} {_short(wanted)}", f"{name} {_short(told)}")


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def feature_order(subject: Subject) -> None:
    """Columns count by name: a window in another order has the same answer, in that order."""
    count = len(subject.described.feature_names)
    if count < 2:
        raise NotApplicable("it has one feature")
    places = np.roll(np.arange(count)[::-1], 1)
    window = _in_order(subject.window(), places)
    asked = "the window's columns in another order"
    answer = subject.predict(subject.request(window))
    for track in answer.tracks:
        if track.feature_names != window.feature_names:
            raise Broken(asked, f"the features {_short(track.feature_names)}")
    if not same(joined(answer), subject.values(subject.request())[:, places]):
        raise Broken(asked, "other values")


def _in_order(
    window: audio_pb2.DescriptorTrack, places: "np.ndarray[tuple[int], np.dtype[np.int64]]"
) -> audio_pb2.DescriptorTrack:
    names = [window.feature_names[place] for place in places]
    changed = audio_pb2.DescriptorTrack()
    changed.CopyFrom(window)
    changed.values = np.ascontiguousarray(rows(window)[:, places]).tobytes()
    changed.feature_names[:] = names
    return changed


def last_frames(subject: Subject) -> None:
    """Only the last window_frames frames count, however long the window is, up to 1 MiB."""
    expected = subject.values(subject.request())
    own, most = subject.described.window_frames, subject.frames_inline
    for frames in sorted({min(own + 3, most), most}):
        request = subject.request(subject.window(frames))
        if not same(subject.values(request), expected):
            raise Broken(summary(request), f"another answer than after the last {own} alone")


def version_told(subject: Subject) -> None:
    """An answer names the weights that made it, by the version_id of the description."""
    told = subject.predict(subject.request()).version_id
    if told != subject.described.version_id:
        raise Broken("a prediction", f"version_id {told!r}, not {subject.described.version_id!r}")


def version_asked(subject: Subject) -> None:
    """A version_id names a predictor as its id does."""
    request = subject.request()
    expected = subject.values(request)
    request.predictor_id = subject.described.version_id
    if not same(subject.values(request), expected):
        raise Broken(f"predictor_id {request.predictor_id!r}", "another answer than by the id")
