"""Servers of `demiurge.predictor.v1` that keep to it but for one defect each."""

# ruff: noqa: ARG002 - what is overridden keeps its arguments

import itertools
import time
from typing import Any

import numpy as np
from demiurge.audio.v1 import audio_pb2
from demiurge.predictor.v1 import predictor_service_pb2 as pb
from grpc import StatusCode
from grpc_health.v1 import health_pb2

from tests.servers.predictors import (
    CHUNK_SECONDS,
    FEATURES,
    HOP,
    IDS,
    MOST_STEPS,
    SERVING,
    WINDOW,
    Deterministic,
    Sound,
)


class NoHealth(Sound):
    health_names = ()


class NotListedByName(Sound):
    """Health of the server alone."""

    health_names = ("",)


class ListedInDisorder(Sound):
    """Out of order, and so without pages."""

    def ListPredictors(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.valid(request, context)
        return pb.ListPredictorsResponse(predictors=map(self.described, reversed(IDS)))


class PagesIgnored(Sound):
    def ListPredictors(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.valid(request, context)
        return pb.ListPredictorsResponse(predictors=map(self.described, IDS))


class EndlessPages(Sound):
    """Its token leads to the same page again."""

    def ListPredictors(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.valid(request, context)
        page = IDS[: request.page_size or 100]
        token = page[-1] if len(page) < len(IDS) else ""
        return pb.ListPredictorsResponse(
            predictors=map(self.described, page), next_page_token=token
        )


class AnyPageSize(Sound):
    def valid(self, request: Any, context: Any) -> None:
        if not isinstance(request, pb.ListPredictorsRequest):
            super().valid(request, context)

    def ListPredictors(self, request: Any, context: Any) -> Any:  # noqa: N802
        request.page_size = max(request.page_size, 0)
        return super().ListPredictors(request, context)


class NoHash(Sound):
    def described(self, id_: str) -> pb.Predictor:
        told = super().described(id_)
        told.weights_sha256 = ""
        return told


class DescribedTwoWays(Sound):
    def GetPredictor(self, request: Any, context: Any) -> Any:  # noqa: N802
        answer = super().GetPredictor(request, context)
        answer.predictor.max_steps -= 1
        return answer


class OneFrameTooFew(Sound):
    def predicted(self, frames: Any, request: Any) -> Any:
        return super().predicted(frames, request)[: max(request.steps - 1, 1)]


class OneHugeTrack(Sound):
    def tracks(self, values: Any, request: Any) -> list[audio_pb2.DescriptorTrack]:
        return [self.track(values, request)]


class NotANumber(Sound):
    def predicted(self, frames: Any, request: Any) -> Any:
        values = super().predicted(frames, request)
        values[-1, 0] = np.nan
        return values


class AnotherHop(Sound):
    def track(self, values: Any, request: Any) -> audio_pb2.DescriptorTrack:
        track = super().track(values, request)
        track.hop_length_samples = 2 * HOP
        return track


class NeverTheSame(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.calls = itertools.count()

    def chance(self, request: Any) -> np.random.Generator:
        return np.random.default_rng([request.seed, next(self.calls)])


class OwnOrder(Sound):
    """Its answers have its own order, and say so."""

    def track(self, values: Any, request: Any) -> audio_pb2.DescriptorTrack:
        track = super().track(values[:, self.order(list(request.window.feature_names))], request)
        track.feature_names[:] = FEATURES
        return track


class ByPosition(Sound):
    """Whatever the columns are called, it takes them as they stand."""

    def order(self, names: list[str]) -> list[int]:
        return list(range(len(names)))


class LooksFurtherBack(Sound):
    def looked_at(self, frames: Any) -> Any:
        return frames.mean(0)


class NoVersion(Sound):
    def version(self, id_: str) -> str:
        return ""


class VersionUnknown(Sound):
    """It does not know its predictions by the version_id that it tells itself."""

    def PredictDescriptors(self, request: Any, context: Any) -> Any:  # noqa: N802
        if "@" in request.predictor_id:
            context.abort(StatusCode.NOT_FOUND, request.predictor_id)
        return super().PredictDescriptors(request, context)


class SeedIgnored(Sound):
    def chance(self, request: Any) -> np.random.Generator:
        return np.random.default_rng(0)


class AlwaysWarm(Sound):
    def temperature(self, request: Any) -> float:
        return 1.0


class WarmAllTheSame(Deterministic):
    """It takes any temperature, and makes nothing of it."""

    lax = frozenset({"temperature"})

    def temperature(self, request: Any) -> float:
        return 0.0


class BelowZero(Sound):
    """It lets every temperature pass."""

    def valid(self, request: Any, context: Any) -> None:
        if isinstance(request, pb.PredictDescriptorsRequest):
            request.temperature = min(max(0.0, request.temperature), 10.0)
        super().valid(request, context)


class UnknownFails(Sound):
    """What is not there is a failure of the server."""

    def known(self, request: Any, context: Any) -> str:
        id_ = str(request.predictor_id).removesuffix("@3")
        if id_ not in IDS:
            context.abort(StatusCode.UNKNOWN, f"KeyError: {id_!r}")
        return id_


class NobodyIsTheFirst(Sound):
    """A call that names nobody is answered by the first."""

    def valid(self, request: Any, context: Any) -> None:
        if not getattr(request, "predictor_id", "all"):
            request.predictor_id = IDS[0]
        super().valid(request, context)


class MissingWindowFails(Sound):
    """Nothing where the window should be is a failure of the server."""

    def valid(self, request: Any, context: Any) -> None:
        window = getattr(request, "window", None)
        if window is not None and window.WhichOneof("payload") != "values":
            context.abort(StatusCode.INTERNAL, "AttributeError")
        super().valid(request, context)


class ShortWindowFails(Sound):
    def refuse(self, request: Any, context: Any) -> None:
        if request.window.frame_count < WINDOW:
            context.abort(StatusCode.UNKNOWN, "IndexError")
        super().refuse(request, context)


class AnySize(Sound):
    """It takes what is longer than a track may be."""

    def valid(self, request: Any, context: Any) -> None:
        if len(getattr(getattr(request, "window", None), "values", b"")) <= 1024 * 1024:
            super().valid(request, context)


class BytesUncounted(Sound):
    """It takes the frames that are whole, and leaves the rest."""

    def refuse(self, request: Any, context: Any) -> None:
        window = request.window
        width = 4 * len(window.feature_names)
        if rows := len(window.values) // width:
            window.values, window.frame_count = window.values[: rows * width], rows
        super().refuse(request, context)


class AnyHop(Sound):
    lax = frozenset({"hop"})


class UnknownFeaturesIgnored(Sound):
    def refuse(self, request: Any, context: Any) -> None:
        window, size = request.window, 4 * len(request.window.feature_names)
        if size and len(window.values) == size * window.frame_count and len(window.values):
            names = [name for name in window.feature_names if name in FEATURES]
            places = [list(window.feature_names).index(name) for name in names]
            values = np.frombuffer(window.values, "<f4").reshape(window.frame_count, -1)
            window.values = values[:, places].tobytes()
            window.feature_names[:] = names
        super().refuse(request, context)


class TakesInfinity(Sound):
    def not_finite(self, context: Any) -> None:
        pass


class NoStepsIsOne(Sound):
    def valid(self, request: Any, context: Any) -> None:
        if isinstance(request, pb.PredictDescriptorsRequest) and request.steps == 0:
            request.steps = 1
        super().valid(request, context)


class AnyNumberOfSteps(Sound):
    lax = frozenset({"steps"})

    def valid(self, request: Any, context: Any) -> None:
        if isinstance(request, pb.PredictDescriptorsRequest):
            request.steps = min(request.steps, MOST_STEPS + 1)
        super().valid(request, context)


class DeadlineIgnored(Sound):
    """It stops for callers who go, and not for those whose time is over."""

    def work(self, request: Any, context: Any) -> None:
        remaining = context.time_remaining()
        self.deadline = time.monotonic() + (remaining if remaining is not None else 1e9)
        super().work(request, context)

    def goes_on(self, context: Any) -> bool:
        # From before it: the client hangs up at its deadline, too.
        return super().goes_on(context) or time.monotonic() > self.deadline - 0.5


class CancellationIgnored(Sound):
    """It stops when the time is over, and not for callers who go."""

    def work(self, request: Any, context: Any) -> None:
        remaining = context.time_remaining()
        self.deadline = time.monotonic() + (remaining if remaining is not None else 1e9)
        super().work(request, context)

    def goes_on(self, context: Any) -> bool:
        return time.monotonic() < self.deadline


class BusyIsDead(Sound):
    """While it works, it says that it does not."""

    def work(self, request: Any, context: Any) -> None:
        self.alive.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        try:
            super().work(request, context)
        finally:
            self.alive.set("", SERVING)


class Deadlock(Sound):
    """Two calls that meet wait for each other until their callers go."""

    def __init__(self) -> None:
        super().__init__()
        self.inside: set[int] = set()

    def PredictDescriptors(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.inside.add(id(context))
        try:
            time.sleep(CHUNK_SECONDS)
            while len(self.inside) > 1 and context.is_active():
                time.sleep(CHUNK_SECONDS)
            return super().PredictDescriptors(request, context)
        finally:
            self.inside.discard(id(context))


class MixedUp(Sound):
    """Calls that come together share what belongs to each."""

    def PredictDescriptors(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.seed = request.seed
        time.sleep(CHUNK_SECONDS)
        return super().PredictDescriptors(request, context)

    def chance(self, request: Any) -> np.random.Generator:
        return np.random.default_rng(self.seed)


class EndlessList(Sound):
    def ListPredictors(self, request: Any, context: Any) -> Any:  # noqa: N802
        number = int(request.page_token or 0)
        described = self.described(f"{number:09d}")
        return pb.ListPredictorsResponse(predictors=[described], next_page_token=f"{number + 1}")


class NeverAnswers(Sound):
    def work(self, request: Any, context: Any) -> None:
        while context.is_active():
            time.sleep(CHUNK_SECONDS)
