"""What servicers count; somebody else's predictor, and all services with it in place of ours."""

import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager

import grpc
import numpy as np
import pytest
from demiurge.predictor.v1 import predictor_service_pb2 as predictor_pb
from demiurge.predictor.v1 import predictor_service_pb2_grpc

from services.audio.track import DescriptorTrack
from services.runtime.messages import track_from_message, track_to_message
from services.runtime.metrics import Metrics
from tests.conftest import RATE, WINDOW_FRAMES, OpenStack, Stack, sound

HOP = 1024

Answer = Callable[[DescriptorTrack, int], list[DescriptorTrack]]


class Repeater(predictor_service_pb2_grpc.PredictorServiceServicer):
    """Somebody else's predictor: by default the window's last frame goes on for ever."""

    def __init__(self) -> None:
        self.described = predictor_pb.Predictor(
            id="repeater",
            window_frames=WINDOW_FRAMES,
            feature_names=[f"mfcc{number}" for number in range(39)],
            sample_rate_hertz=RATE,
            hop_length_samples=HOP,
            max_steps=1000,
        )
        self.answer: Answer = lambda window, steps: [held(window, steps)]
        self.version_id = ""
        self.temperatures: list[float] = []
        self.asked = threading.Event()
        self.may_answer = threading.Event()
        self.may_answer.set()

    def GetPredictor(self, *_: object) -> object:  # noqa: N802
        return predictor_pb.GetPredictorResponse(predictor=self.described)

    def PredictDescriptors(  # noqa: N802
        self, request: predictor_pb.PredictDescriptorsRequest, context: grpc.ServicerContext
    ) -> object:
        self.temperatures.append(request.temperature)
        self.asked.set()
        while context.is_active() and not self.may_answer.wait(0.02):
            pass
        tracks = self.answer(track_from_message(request.window), request.steps)
        return predictor_pb.PredictDescriptorsResponse(
            tracks=map(track_to_message, tracks), version_id=self.version_id
        )


def held(window: DescriptorTrack, steps: int) -> DescriptorTrack:
    last = np.repeat(window.values[-1:], steps, axis=0)
    return DescriptorTrack(
        window.feature_names, last, window.sample_rate_hertz, window.hop_length_samples
    )


@contextmanager
def served(servicer: Repeater, port: int = 0) -> Iterator[str]:
    server = grpc.server(futures.ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    predictor_service_pb2_grpc.add_PredictorServiceServicer_to_server(servicer, server)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield f"127.0.0.1:{bound}"
    finally:
        server.stop(0).wait()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture(scope="module")
def elsewhere(
    open_stack: OpenStack, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Stack, Repeater]]:
    """A stack whose predictor is at another address."""
    repeater = Repeater()
    folder = tmp_path_factory.mktemp("elsewhere")
    with served(repeater) as address, open_stack(folder, predictor_address=address) as stack:
        stack.upload("prediction", "1.wav", sound(1.0, 1))
        stack.upload("material", "2.wav", sound(1.0, 2))
        yield stack, repeater


@pytest.fixture
def repeated(elsewhere: tuple[Stack, Repeater]) -> Iterator[tuple[Stack, Repeater]]:
    """The same, its predictor as it was in the beginning."""
    _, repeater = elsewhere
    fresh = Repeater()
    yield elsewhere
    repeater.may_answer.set()
    repeater.asked.clear()
    repeater.answer = fresh.answer
    repeater.described = fresh.described
    repeater.version_id = fresh.version_id
