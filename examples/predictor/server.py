"""A predictor of your own: a whole server of `demiurge.predictor.v1`, to be copied.

Replace `continued` and `DESCRIBED`. What is here needs no training: it goes on from the last frames
as the window went on after the earlier moments that are most like them (forecasting by analogues:
Lorenz, "Atmospheric predictability as revealed by naturally occurring analogues", 1969).
"""
# ruff: noqa: D102, N802

import hashlib
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import protovalidate
from demiurge.predictor.v1 import predictor_service_pb2 as pb
from demiurge.predictor.v1 import predictor_service_pb2_grpc as pb_grpc
from grpc import StatusCode
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

AT_ONCE, DRAIN_SECONDS = 8, 30
ALIKE, PHRASE, NEIGHBORS, RECOVERY = 4, 16, 8, 0.95  # A window holds 20 frames at least.

DESCRIBED = pb.Predictor(
    id="recurrence",
    version_id="recurrence@1",
    architecture="Recurrence",
    window_frames=int(os.environ.get("WINDOW_FRAMES", "200")),
    feature_names=[f"mfcc{number}" for number in range(39)],
    sample_rate_hertz=44100,
    hop_length_samples=1024,
    max_steps=20000,
    stochastic=True,
    # What changes whenever the answers change: this file.
    weights_sha256=hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
)


def continued(window, steps, seed, temperature, wanted):
    """The next (steps, features) frames, or fewer if `wanted`, asked now and then, says no."""
    chance = np.random.default_rng(seed)  # The same request always gets the same answer.
    scaled = (window - window.mean(0, float)) / np.maximum(window.std(0, float), 1e-9)
    products = scaled @ scaled.T / scaled.shape[1]
    apart = products.diagonal()[:, None] + products.diagonal() - 2 * products
    path = list(range(len(window) - ALIKE, len(window)))
    end = len(window) - PHRASE + 1
    tired = np.zeros(end - ALIKE)
    while len(path) < ALIKE + steps and wanted():
        # Entry i: how unlike the newest frames are to the ALIKE ones from place i on.
        unlike = [apart[path[-back], ALIKE - back : end - back] for back in range(1, ALIKE + 1)]
        # What was just used is avoided for a while, so that no loop lasts.
        costs = np.sum(unlike, axis=0) + tired
        near = costs.argsort(kind="stable")[: NEIGHBORS if temperature > 0 else 1]
        weights = np.exp((costs[near[0]] - costs[near]) / max(temperature, 1e-9))
        choice = int(chance.choice(near, p=weights / weights.sum()))
        path.extend(range(choice + ALIKE, choice + ALIKE + PHRASE))
        tired *= RECOVERY
        tired[max(choice - PHRASE, 0) : choice + PHRASE] += 1
    return window[path[ALIKE : ALIKE + steps]]


class Predictor(pb_grpc.PredictorServiceServicer):
    """The contract around it: protos/demiurge/predictor/v1/predictor_service.proto."""

    free = threading.BoundedSemaphore(AT_ONCE)

    def PredictDescriptors(self, request, context):
        self.check(request, context)
        # Features count by name: the window may have them in any order, and the answer has that.
        asked, own = list(request.window.feature_names), list(DESCRIBED.feature_names)
        window = self.checked_window(request, context)[:, [asked.index(name) for name in own]]
        # More callers than can be served are sent away at once, and may come back.
        if not self.free.acquire(blocking=False):
            context.abort(StatusCode.RESOURCE_EXHAUSTED, f"{AT_ONCE} at work: try again later")
        try:
            # Not active: the caller has gone or its deadline has passed, so it stops.
            chance = request.seed, request.temperature
            values = continued(window, request.steps, *chance, wanted=context.is_active)
        finally:
            self.free.release()
        values = values[:, [own.index(name) for name in asked]].astype("<f4")
        answer = pb.PredictDescriptorsResponse(version_id=DESCRIBED.version_id)
        most = 1024 * 1024 // (4 * len(asked))  # So many frames fit into one track.
        for first in range(0, len(values), most):
            piece = values[first : first + most]
            track = answer.tracks.add()
            track.CopyFrom(request.window)
            track.frame_count, track.values = len(piece), piece.tobytes()
        return answer

    def GetPredictor(self, request, context):
        self.check(request, context)
        return pb.GetPredictorResponse(predictor=DESCRIBED)

    def ListPredictors(self, request, context):
        self.check(request, context)
        there = [DESCRIBED] if DESCRIBED.id > request.page_token else []
        return pb.ListPredictorsResponse(predictors=there)

    def check(self, request, context):
        """Refuses what breaks a rule written in the proto, and predictors that are not here."""
        try:
            protovalidate.validate(request)
        except protovalidate.ValidationError as error:
            context.abort(StatusCode.INVALID_ARGUMENT, str(error))
        named = getattr(request, "predictor_id", DESCRIBED.id)
        if named not in {DESCRIBED.id, DESCRIBED.version_id}:
            context.abort(StatusCode.NOT_FOUND, f"no predictor {named!r}; there is {DESCRIBED.id}")

    def checked_window(self, request, context):
        """The frames that count, (window_frames, features); refuses what no rule can tell."""
        track, own = request.window, DESCRIBED
        values = np.frombuffer(track.values, "<f4", len(track.values) // 4)
        demands = {
            "steps": request.steps <= own.max_steps,
            "features": set(track.feature_names) == set(own.feature_names),
            "sample_rate_hertz": track.sample_rate_hertz == own.sample_rate_hertz,
            "hop_length_samples": track.hop_length_samples == own.hop_length_samples,
            "frames": track.frame_count >= own.window_frames,
            "bytes": len(track.values) == 4 * track.frame_count * len(track.feature_names),
            "values": np.isfinite(values).all(),
        }
        if wrong := [name for name, fits in demands.items() if not fits]:
            context.abort(StatusCode.INVALID_ARGUMENT, f"{wrong} do not fit {own}")
        return values.reshape(track.frame_count, -1)[-own.window_frames :]


def main():
    """Serves until SIGTERM or Ctrl-C, and then finishes what is under way."""
    signal.pthread_sigmask(signal.SIG_BLOCK, stop := {signal.SIGTERM, signal.SIGINT})
    # Threads to spare, so that health is told even while all others work.
    server = grpc.server(ThreadPoolExecutor(2 * AT_ONCE), options=[("grpc.so_reuseport", 0)])
    pb_grpc.add_PredictorServiceServicer_to_server(Predictor(), server)
    alive = health.HealthServicer()
    for name in ("", "readiness", "demiurge.predictor.v1.PredictorService"):
        alive.set(name, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(alive, server)
    server.add_insecure_port(os.environ.get("ADDRESS", "127.0.0.1:50061"))
    server.start()
    signal.sigwait(stop)
    alive.enter_graceful_shutdown()
    server.stop(DRAIN_SECONDS).wait()


if __name__ == "__main__":
    main()
