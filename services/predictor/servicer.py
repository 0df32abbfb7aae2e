"""The predictor service: a window in, its continuation out. Its only store is that of models."""

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import structlog
from demiurge.predictor.v1 import predictor_service_pb2 as pb
from demiurge.predictor.v1 import predictor_service_pb2_grpc as pb_grpc

from services.errors import ConfigurationError, CorruptObjectError, InvalidInputError
from services.learning.device import open_device
from services.predictor.config import PredictorConfig
from services.predictor.continuation import continue_track, pieces
from services.predictor.loaded import LoadedPredictors
from services.predictor.settings import PredictorSettings
from services.runtime.messages import MAX_INLINE_BYTES, track_from_message, track_to_message

if TYPE_CHECKING:
    from services.audio.track import DescriptorTrack
    from services.predictor.port import Predictor
    from services.runtime.device_queue import Checkpoint, DeviceQueue
    from services.runtime.model_store import ModelStore, ModelVersion

DEFAULT_PAGE_SIZE = 100
FAMILY = "predictor"

Context = grpc.aio.ServicerContext[Any, Any]


class PredictorServicer(pb_grpc.PredictorServiceServicer):
    """demiurge.predictor.v1.PredictorService over a model store; models run in the device queue."""

    def __init__(
        self, settings: PredictorSettings, models: "ModelStore", queue: "DeviceQueue"
    ) -> None:
        self._max_steps = settings.max_steps
        self._models = models
        self._queue = queue
        device = open_device(settings.device, "DEMIURGE_PREDICTOR_DEVICE", ConfigurationError)
        self._loaded = LoadedPredictors(device, settings.loaded_models)

    async def PredictDescriptors(
        self, request: pb.PredictDescriptorsRequest, context: Context
    ) -> pb.PredictDescriptorsResponse:
        """The frames after the window, its columns in the same order."""
        if request.steps > self._max_steps:
            raise InvalidInputError(
                f"steps is {request.steps}; this service predicts at most {self._max_steps} a "
                "request: ask again from where that ends",
                culprit="steps",
            )
        track = track_from_message(request.window)
        version = await asyncio.to_thread(self._models.find, FAMILY, request.predictor_id)

        def predict(checkpoint: "Checkpoint") -> "DescriptorTrack":
            return continue_track(
                self._model(version),
                track,
                request.steps,
                seed=request.seed,
                temperature=request.temperature,
                checkpoint=checkpoint,
            )

        continued = await self._queue.run(predict)
        return pb.PredictDescriptorsResponse(
            tracks=[track_to_message(piece) for piece in pieces(continued, MAX_INLINE_BYTES)],
            version_id=version.version_id,
        )

    def _model(self, version: "ModelVersion") -> "Predictor":
        return self._loaded.get(
            (version.version_id, version.weights_sha256),
            version.config,
            lambda: self._models.read_weights(version),
        )

    async def GetPredictor(
        self, request: pb.GetPredictorRequest, context: Context
    ) -> pb.GetPredictorResponse:
        """The predictor of that id."""
        version = await asyncio.to_thread(self._models.find, FAMILY, request.predictor_id)
        return pb.GetPredictorResponse(predictor=self._described(version))

    async def ListPredictors(
        self, request: pb.ListPredictorsRequest, context: Context
    ) -> pb.ListPredictorsResponse:
        """A page of predictors; the token is the last id of the page before."""
        rest = await asyncio.to_thread(self._after, request.page_token)
        size = request.page_size or DEFAULT_PAGE_SIZE
        return pb.ListPredictorsResponse(
            predictors=rest[:size],
            next_page_token=rest[size - 1].id if len(rest) > size else "",
        )

    def _after(self, token: str) -> list[pb.Predictor]:
        """The predictors whose ids come after `token`; damaged ones are logged and left out."""
        found = []
        for version in self._models.list(FAMILY):
            if version.id <= token:
                continue
            try:
                found.append(self._described(version))
            except CorruptObjectError as error:
                structlog.get_logger().warning(
                    "predictor left out", model=version.id, reason=error.message
                )
        return found

    def _described(self, version: "ModelVersion") -> pb.Predictor:
        config = PredictorConfig.from_json(version.config)
        return pb.Predictor(
            id=version.id,
            version_id=version.version_id,
            architecture=config.architecture,
            window_frames=config.window_frames,
            feature_names=config.feature_names,
            sample_rate_hertz=config.sample_rate_hertz,
            hop_length_samples=config.hop_length_samples,
            max_steps=self._max_steps,
            stochastic=False,
            weights_sha256=version.weights_sha256,
            step=version.step,
        )
