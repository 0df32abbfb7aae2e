"""A small server of `demiurge.predictor.v1` that keeps to it, made to be broken step by step."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np
import protovalidate
from demiurge.audio.v1 import audio_pb2
from demiurge.predictor.v1 import predictor_service_pb2 as pb
from demiurge.predictor.v1 import predictor_service_pb2_grpc as pb_grpc
from grpc import StatusCode
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

# So many that few frames fill a track.
FEATURES = tuple(f"band{number}" for number in range(64))
FRAMES_INLINE = 4096
WINDOW, RATE, HOP, MOST_STEPS = 6, 16000, 160, 5000
# Requests beyond this take as long as a device would.
LONG_STEPS, LONG_SECONDS, CHUNK_SECONDS = 4500, 2.5, 0.01
SERVICE = "demiurge.predictor.v1.PredictorService"
IDS = ("drift", "hold", "hum")
INVALID = StatusCode.INVALID_ARGUMENT
SERVING = health_pb2.HealthCheckResponse.SERVING


class Sound(pb_grpc.PredictorServiceServicer):
    """No defect: the window's last frame fades, with noise for the stochastic; one call at a time.

    A defect is a subclass that overrides one step.
    """

    stochastic = True
    health_names = ("", "readiness", SERVICE)

    def __init__(self) -> None:
        self.device = threading.Lock()
        self.alive = health.HealthServicer()

    # What it says of itself.

    def described(self, id_: str) -> pb.Predictor:
        return pb.Predictor(
            id=id_,
            version_id=f"{id_}@3",
            window_frames=WINDOW,
            feature_names=FEATURES,
            sample_rate_hertz=RATE,
            hop_length_samples=HOP,
            max_steps=MOST_STEPS,
            stochastic=self.stochastic,
            weights_sha256="0" * 64,
        )

    def GetPredictor(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.valid(request, context)
        return pb.GetPredictorResponse(predictor=self.described(self.known(request, context)))

    def ListPredictors(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.valid(request, context)
        rest = [id_ for id_ in self.listed() if id_ > request.page_token]
        page = rest[: request.page_size or 100]
        return pb.ListPredictorsResponse(
            predictors=[self.described(id_) for id_ in page],
            next_page_token=page[-1] if len(page) < len(rest) else "",
        )

    def listed(self) -> list[str]:
        return list(IDS)

    # What it refuses.

    def valid(self, request: Any, context: Any) -> None:
        try:
            protovalidate.validate(request)
        except protovalidate.ValidationError as error:
            context.abort(INVALID, str(error))

    def known(self, request: Any, context: Any) -> str:
        id_ = str(request.predictor_id).removesuffix("@3")
        if id_ not in IDS:
            context.abort(StatusCode.NOT_FOUND, f"no {request.predictor_id}")
        return id_

    def refuse(self, request: Any, context: Any) -> None:
        """Each name is a rule; `lax` are rules that a defect forgets."""
        window = request.window
        size = 4 * window.frame_count * len(window.feature_names)
        rules = {
            "steps": request.steps <= MOST_STEPS,
            "features": sorted(window.feature_names) == sorted(FEATURES),
            "rate": window.sample_rate_hertz == RATE,
            "hop": window.hop_length_samples == HOP,
            "bytes": len(window.values) == size,
            "frames": window.frame_count >= WINDOW,
            "temperature": self.stochastic or request.temperature == 0,
        }
        for rule, kept in rules.items():
            if not kept and rule not in self.lax:
                context.abort(INVALID, rule)
        if not np.isfinite(np.frombuffer(window.values[: size or None], "<f4")).all():
            self.not_finite(context)

    lax: frozenset[str] = frozenset()

    def not_finite(self, context: Any) -> None:
        context.abort(INVALID, "values")

    # What it predicts.

    def PredictDescriptors(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.valid(request, context)
        id_ = self.known(request, context)
        self.refuse(request, context)
        with self.device:
            self.work(request, context)
            names = list(request.window.feature_names)
            frames = np.frombuffer(request.window.values, "<f4").reshape(-1, len(names))
            order = self.order(names)
            predicted = self.predicted(frames[:, order], request)
        tracks = self.tracks(predicted[:, np.argsort(order)], request)
        return pb.PredictDescriptorsResponse(tracks=tracks, version_id=self.version(id_))

    def order(self, names: list[str]) -> list[int]:
        """Where its own features are in the window."""
        return [names.index(name) for name in FEATURES]

    def work(self, request: Any, context: Any) -> None:
        """Takes its time, and stops if nobody waits."""
        if not context.is_active():
            context.abort(StatusCode.CANCELLED, "gone")
        is_long = LONG_STEPS < request.steps <= MOST_STEPS
        end = time.monotonic() + (LONG_SECONDS if is_long else 0)
        while time.monotonic() < end and self.goes_on(context):
            time.sleep(CHUNK_SECONDS)

    def goes_on(self, context: Any) -> bool:
        return bool(context.is_active())

    def predicted(self, frames: Any, request: Any) -> Any:
        steps = np.arange(1, request.steps + 1)[:, None]
        noise = self.chance(request).normal(size=(request.steps, len(FEATURES)))
        faded = self.looked_at(frames) * 0.9**steps * np.linspace(0.5, 1, len(FEATURES))
        return (faded + self.temperature(request) * noise).astype("<f4")

    def looked_at(self, frames: Any) -> Any:
        return frames[-WINDOW:].mean(0)

    def chance(self, request: Any) -> np.random.Generator:
        return np.random.default_rng(request.seed)

    def temperature(self, request: Any) -> float:
        return float(request.temperature)

    def tracks(self, values: Any, request: Any) -> list[audio_pb2.DescriptorTrack]:
        return [
            self.track(values[first : first + FRAMES_INLINE], request)
            for first in range(0, len(values), FRAMES_INLINE)
        ]

    def track(self, values: Any, request: Any) -> audio_pb2.DescriptorTrack:
        return audio_pb2.DescriptorTrack(
            feature_names=request.window.feature_names,
            frame_count=len(values),
            sample_rate_hertz=RATE,
            hop_length_samples=HOP,
            values=np.ascontiguousarray(values, "<f4").tobytes(),
        )

    def version(self, id_: str) -> str:
        return f"{id_}@3"


class Deterministic(Sound):
    stochastic = False


@contextmanager
def served(servicer: Sound) -> Iterator[str]:
    """The server's address."""
    server = grpc.server(ThreadPoolExecutor(24))
    pb_grpc.add_PredictorServiceServicer_to_server(servicer, server)
    if servicer.health_names:
        for name in servicer.health_names:
            servicer.alive.set(name, SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(servicer.alive, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()
