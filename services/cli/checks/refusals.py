"""What has to be refused: each by the code that tells the caller whose fault it is."""

import math
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
from demiurge.predictor.v1 import predictor_service_pb2 as pb

from services.cli.checks.subject import Subject, rows
from services.cli.options import MAX_STEPS


def unknown_predictor(subject: Subject) -> None:
    """A predictor that is not there is NOT_FOUND."""
    name = "no-such-predictor"
    request = subject.request()
    request.predictor_id = name
    asked = pb.GetPredictorRequest(predictor_id=name)
    code = grpc.StatusCode.NOT_FOUND
    subject.refused(subject.stub.GetPredictor, asked, f"GetPredictor of {name!r}", code)
    subject.refused(subject.stub.PredictDescriptors, request, f"a prediction of {name!r}", code)


def no_predictor(subject: Subject) -> None:
    """A call that names no predictor is refused by INVALID_ARGUMENT."""
    subject.refused(subject.stub.GetPredictor, pb.GetPredictorRequest(), "GetPredictor of ''")
    subject.refuses("a prediction of ''", lambda request: request.ClearField("predictor_id"))


def short_window(subject: Subject) -> None:
    """A window of fewer than window_frames frames is refused by INVALID_ARGUMENT."""
    own = subject.described.window_frames
    for frames in sorted({own - 1, own // 2} - {0}):
        window = subject.window(frames)
        subject.refuses(f"a window of {frames} frames", _with(window=window))
    subject.refuses("a window of no frames", _with(frame_count=0, values=b""))


def missing_window(subject: Subject) -> None:
    """A window that is missing, or not inline, is refused by INVALID_ARGUMENT."""
    subject.refuses("no window", lambda request: request.ClearField("window"))
    subject.refuses("a window without values", lambda request: request.window.ClearField("values"))

    def by_reference(request: pb.PredictDescriptorsRequest) -> None:
        request.window.object.key = "descriptors/wren.json"
        request.window.object.sha256 = "0" * 64

    subject.refuses("a window by reference", by_reference)


def oversized_window(subject: Subject) -> None:
    """A window of more than 1 MiB is refused by INVALID_ARGUMENT."""
    frames = subject.frames_inline + 1
    subject.refuses(f"a window of {frames} frames", _with(window=subject.window(frames)))


def wrong_bytes(subject: Subject) -> None:
    """Values that do not fit frames and features are refused by INVALID_ARGUMENT."""
    values = subject.window().values
    for what, changed in (("4 bytes less", values[:-4]), ("a byte more", values + b"\0")):
        subject.refuses(f"values of {what}", _with(values=changed))
    frames = subject.described.window_frames + 1
    subject.refuses("a frame_count of one more than there are", _with(frame_count=frames))


def wrong_settings(subject: Subject) -> None:
    """A window of another rate or hop is refused by INVALID_ARGUMENT."""
    for name in ("sample_rate_hertz", "hop_length_samples"):
        own = getattr(subject.described, name)
        for value in (own // 2 or 2, 0):
            subject.refuses(f"{name} {value}", _with(**{name: value}))


def wrong_features(subject: Subject) -> None:
    """A window of other features than the predictor's is refused by INVALID_ARGUMENT."""
    window = subject.window()
    names, values = list(window.feature_names), rows(window)
    wider = np.concatenate([values, values[:, -1:]], axis=1)
    variants = {
        "an unknown feature": ([*names[:-1], "no-such-feature"], values),
        "one feature more": ([*names, "no-such-feature"], wider),
        "a feature twice": ([*names, names[0]], wider),
    }
    if len(names) > 1:
        variants["one feature less"] = (names[:-1], values[:, :-1])
    for asked, (changed, columns) in variants.items():
        subject.refuses(asked, _with(feature_names=changed, values=columns.tobytes()))


def values_not_finite(subject: Subject) -> None:
    """A window that holds NaN or infinity is refused by INVALID_ARGUMENT."""
    for value in (np.nan, np.inf):
        values = rows(subject.window()).copy()
        values[-1, 0] = value
        subject.refuses(f"a window with {value}", _with(values=values.tobytes()))


def no_steps(subject: Subject) -> None:
    """A request for 0 steps is refused by INVALID_ARGUMENT."""
    subject.refuses("0 steps", lambda request: request.ClearField("steps"))


def too_many_steps(subject: Subject) -> None:
    """A request for more than max_steps is refused by INVALID_ARGUMENT."""
    for count in sorted({subject.described.max_steps + 1, MAX_STEPS + 1}):

        def change(request: pb.PredictDescriptorsRequest, count: int = count) -> None:
            request.steps = count

        subject.refuses(f"{count} steps", change)


def temperature_bounds(subject: Subject) -> None:
    """A temperature below 0, above 10 or not a number is refused by INVALID_ARGUMENT."""
    for value in (-0.5, 10.5, math.nan):

        def change(request: pb.PredictDescriptorsRequest, value: float = value) -> None:
            request.temperature = value

        subject.refuses(f"temperature {value:g}", change)


def _with(**changes: Any) -> Callable[[pb.PredictDescriptorsRequest], None]:
    """Puts another window into a request, or changes fields of the one that is there."""

    def change(request: pb.PredictDescriptorsRequest) -> None:
        for name, value in changes.items():
            if name == "window":
                request.window.CopyFrom(value)
            elif name == "feature_names":
                request.window.feature_names[:] = value
            else:
                setattr(request.window, name, value)

    return change
