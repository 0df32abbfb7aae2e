"""The server under test: calls that end in bounded time, and windows to ask with."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import grpc
import numpy as np
from demiurge.audio.v1 import audio_pb2
from demiurge.predictor.v1 import predictor_service_pb2 as pb
from demiurge.predictor.v1.predictor_service_pb2_grpc import PredictorServiceStub
from numpy.typing import NDArray

from services.cli.checks.outcome import Broken
from services.runtime.messages import MAX_INLINE_BYTES

FloatArray = NDArray[np.float32]
Change = Callable[[pb.PredictDescriptorsRequest], object]

STEPS = 24
TOLERANCE = 1e-3
SECONDS_BETWEEN_TRIES = 0.02
GONE = {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE}


@dataclass(frozen=True)
class Limits:
    """How long the server is waited for."""

    answer_seconds: float = 60.0
    """Longest wait for any answer."""
    free_seconds: float = 5.0
    """Longest wait for a short answer once long calls were given up."""
    abandon_seconds: float = 0.2
    """When long calls are given up."""


@dataclass
class Subject:
    """One predictor of one server. Calls raise Broken where the server answers with an error."""

    channel: grpc.Channel
    described: pb.Predictor
    """What ListPredictors told of it."""
    listed: Sequence[pb.Predictor]
    """All predictors of the server, as listed at once."""
    limits: Limits = field(default_factory=Limits)

    @cached_property
    def stub(self) -> PredictorServiceStub:
        """The service under test."""
        return PredictorServiceStub(self.channel)

    @property
    def frames_inline(self) -> int:
        """Frames that one track can hold."""
        return MAX_INLINE_BYTES // (4 * max(len(self.described.feature_names), 1))

    @cached_property
    def long_answer(self) -> pb.PredictDescriptorsResponse:
        """An answer that fits into no single track."""
        return self.predict(self.request(steps=self.frames_inline + 1))

    @property
    def temperature(self) -> float:
        """1 where chance is allowed, else 0."""
        return 1.0 if self.described.stochastic else 0.0

    def window(self, frames: int = 0, seed: int = 1) -> audio_pb2.DescriptorTrack:
        """`frames` frames, else as many as it looks at, that wander smoothly as descriptors do.

        A longer window ends with the frames of a shorter one.
        """
        names = self.described.feature_names
        frames = frames or self.described.window_frames
        chance = np.random.default_rng(seed)
        phases = chance.uniform(0, 2 * np.pi, len(names))
        periods = chance.uniform(7, 60, len(names))
        # Counted from the end, in blocks whose noise depends on nothing else.
        ago = np.arange(frames)[::-1, None]
        noise = chance.normal(size=(frames, len(names)))[::-1]
        values = 10 * np.sin(phases + ago / periods) + noise
        return audio_pb2.DescriptorTrack(
            feature_names=names,
            frame_count=frames,
            sample_rate_hertz=self.described.sample_rate_hertz,
            hop_length_samples=self.described.hop_length_samples,
            framing=audio_pb2.FRAMING_CENTERED,
            source="conformance.wav",
            values=values.astype("<f4").tobytes(),
        )

    def request(
        self,
        window: audio_pb2.DescriptorTrack | None = None,
        *,
        steps: int = 0,
        seed: int = 7,
        temperature: float | None = None,
    ) -> pb.PredictDescriptorsRequest:
        """A request that keeps to the contract."""
        return pb.PredictDescriptorsRequest(
            predictor_id=self.described.id,
            window=window or self.window(),
            steps=steps or min(STEPS, self.described.max_steps),
            seed=seed,
            temperature=self.temperature if temperature is None else temperature,
        )

    def predict(
        self, request: pb.PredictDescriptorsRequest, seconds: float = 0
    ) -> pb.PredictDescriptorsResponse:
        """PredictDescriptors, answered in time."""
        with told_by(summary(request)):
            return self.stub.PredictDescriptors(
                request, timeout=seconds or self.limits.answer_seconds
            )

    def values(self, request: pb.PredictDescriptorsRequest) -> FloatArray:
        """What is predicted, (frames, features)."""
        return joined(self.predict(request))

    def refused(
        self,
        call: Callable[..., Any],
        request: Any,
        asked: str,
        code: grpc.StatusCode = grpc.StatusCode.INVALID_ARGUMENT,
    ) -> None:
        """Raises Broken unless the call is refused with that code."""
        try:
            call(request, timeout=self.limits.answer_seconds)
        except grpc.RpcError as error:
            if code_of(error) == code:
                return
            raise Broken(asked, f"{said(error)}, not {code.name}") from None
        raise Broken(asked, f"it was accepted, not refused by {code.name}")

    def refuses(self, asked: str, change: Change) -> None:
        """Raises Broken unless a request so changed is refused by INVALID_ARGUMENT."""
        request = self.request()
        change(request)
        self.refused(self.stub.PredictDescriptors, request, asked)

    def free_again(self) -> bool:
        """Whether a short request is soon answered; a full server is asked again until then."""
        end = time.monotonic() + self.limits.free_seconds
        while (left := end - time.monotonic()) > 0:
            try:
                self.stub.PredictDescriptors(self.request(steps=1), timeout=left)
            except grpc.RpcError as error:
                if code_of(error) != grpc.StatusCode.RESOURCE_EXHAUSTED:
                    return False
                time.sleep(SECONDS_BETWEEN_TRIES)
            else:
                return True
        return False

    def answers(self) -> bool:
        """Whether a short request is answered at all, if only by an error."""
        try:
            self.stub.PredictDescriptors(self.request(steps=1), timeout=self.limits.answer_seconds)
        except grpc.RpcError as error:
            return code_of(error) not in GONE
        return True


@contextmanager
def told_by(asked: str) -> Iterator[None]:
    """Raises Broken, saying what was asked, in the place of a call's error."""
    try:
        yield
    except grpc.RpcError as error:
        raise Broken(asked, said(error)) from None


def code_of(error: grpc.RpcError) -> grpc.StatusCode:
    """The code of a failed call."""
    # Errors of calls are calls too, which RpcError's type does not say.
    code: grpc.StatusCode = getattr(error, "code", lambda: grpc.StatusCode.UNKNOWN)()
    return code


def said(error: grpc.RpcError) -> str:
    """Code and message of a failed call, on one line."""
    details = " ".join(str(getattr(error, "details", str)() or "").split())
    return f"{code_of(error).name}: {details[:200]}" if details else code_of(error).name


def summary(request: pb.PredictDescriptorsRequest) -> str:
    """A request in a few words."""
    return (
        f"{request.steps} steps after {request.window.frame_count} frames, seed {request.seed}, "
        f"temperature {request.temperature:g}"
    )


def joined(answer: pb.PredictDescriptorsResponse) -> FloatArray:
    """All frames of an answer, (frames, features), as they came.

    Raises Broken if bytes, frames and features do not fit each other.
    """
    return np.concatenate([rows(track) for track in answer.tracks] or [np.zeros((0, 0), "<f4")])


def rows(track: audio_pb2.DescriptorTrack) -> FloatArray:
    """The frames of one track, (frames, features)."""
    size = 4 * track.frame_count * len(track.feature_names)
    if len(track.values) != size or not size:
        raise Broken(
            "a prediction",
            f"a track of {track.frame_count} frames, {len(track.feature_names)} features and "
            f"{len(track.values)} bytes of values",
        )
    return np.frombuffer(track.values, "<f4").reshape(track.frame_count, -1)


def same(one: FloatArray, other: FloatArray) -> bool:
    """Whether both hold the same values, but for rounding."""
    if one.shape != other.shape:
        return False
    scale = np.nanstd(one) if one.size else 0.0
    return np.allclose(one, other, rtol=TOLERANCE, atol=TOLERANCE * scale, equal_nan=True)
