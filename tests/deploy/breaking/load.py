"""Load on the published address: callers who each ask one thing after the other."""

# ruff: noqa: PLC0415

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np

from tests.conftest import PREDICTOR, UNAGAN, WINDOW_FRAMES

if TYPE_CHECKING:
    from services.runtime.settings import RuntimeSettings

Call = Callable[[grpc.aio.Channel], Awaitable[Any]]


@dataclass
class Answers:
    """How the calls went: seconds until each answer, by code, and what went wrong in words."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    errors: set[str] = field(default_factory=set)

    def count(self, code: str) -> int:
        """How many had that code."""
        return len(self.seconds.get(code, ()))

    def percentile(self, code: str, percent: float) -> float:
        """Seconds within which so many per cent of the answers with that code came."""
        return float(np.percentile(self.seconds[code], percent))


async def load(
    address: str,
    settings: "RuntimeSettings",
    calls: Sequence[Call],
    *,
    callers: int,
    seconds: float = 0.0,
    count: int = 0,
) -> Answers:
    """What so many callers hear on one channel, who ask the calls in turn, so long or so often.

    Who is refused for want of room waits as our own clients do.
    """
    from services.runtime.channels import open_channel
    from services.runtime.pauses import pauses

    answers = Answers()
    end = time.monotonic() + seconds
    asked = 0

    async def ask(channel: grpc.aio.Channel) -> None:
        nonlocal asked
        waits = pauses()
        while time.monotonic() < end or asked < count:
            call = calls[asked % len(calls)]
            asked += 1
            began, code = time.monotonic(), "OK"
            try:
                await call(channel)
            except grpc.aio.AioRpcError as error:
                code = error.code().name
                answers.errors.add(f"{code}: {error.details()}")
            answers.seconds.setdefault(code, []).append(time.monotonic() - began)
            if code == "RESOURCE_EXHAUSTED":
                await asyncio.sleep(next(waits))
            else:
                waits = pauses()

    async with open_channel(address, settings) as channel:
        await asyncio.gather(*(ask(channel) for _ in range(callers)))
    return answers


def predict(steps: int) -> Call:
    """PredictDescriptors: work for the device, as much as there are steps."""
    from demiurge.predictor.v1.predictor_service_pb2 import PredictDescriptorsRequest
    from demiurge.predictor.v1.predictor_service_pb2_grpc import PredictorServiceStub

    from services.audio.track import DescriptorTrack
    from services.runtime.messages import track_to_message

    values = np.random.default_rng(0).normal(size=(WINDOW_FRAMES, 39)).astype(np.float32)
    names = tuple(f"mfcc{number}" for number in range(39))
    window = track_to_message(DescriptorTrack(names, values, 44_100, 1024))
    request = PredictDescriptorsRequest(predictor_id=PREDICTOR, window=window, steps=steps)

    async def ask(channel: grpc.aio.Channel) -> Any:
        return await PredictorServiceStub(channel).PredictDescriptors(request, timeout=60)

    return ask


def small_calls() -> list[Call]:
    """A question to each service that keeps something."""
    from demiurge.gateway.v1.gateway_service_pb2 import ListRunsRequest
    from demiurge.gateway.v1.gateway_service_pb2_grpc import PipelineServiceStub
    from demiurge.predictor.v1.predictor_service_pb2 import GetPredictorRequest
    from demiurge.predictor.v1.predictor_service_pb2_grpc import PredictorServiceStub
    from demiurge.query.v1.query_service_pb2 import ListCollectionsRequest
    from demiurge.query.v1.query_service_pb2_grpc import QueryServiceStub
    from demiurge.synth.v1.synth_service_pb2 import GetModelRequest
    from demiurge.synth.v1.synth_service_pb2_grpc import SynthServiceStub

    return [
        lambda channel: PipelineServiceStub(channel).ListRuns(ListRunsRequest(), timeout=30),
        lambda channel: PredictorServiceStub(channel).GetPredictor(
            GetPredictorRequest(predictor_id=PREDICTOR), timeout=30
        ),
        lambda channel: QueryServiceStub(channel).ListCollections(
            ListCollectionsRequest(), timeout=30
        ),
        lambda channel: SynthServiceStub(channel).GetModel(
            GetModelRequest(model_id=UNAGAN), timeout=30
        ),
    ]
