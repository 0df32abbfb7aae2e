"""The predictor service: a window in, its continuation out. Its only store is that of models."""

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc
import structlog
from demiurge.predictor.v1 import predictor_service_pb2 as pb
from demiurge.predictor.v1 import predictor_service_pb2_grpc as pb_grpc

from services.errors import (
    ConfigurationError,
    CorruptObjectError,
    DemiurgeError,
    InvalidInputError,
    NotFoundError,
)
from services.learning.device import device_memory, open_device
from services.predictor.config import PredictorConfig
from services.predictor.continuation import continue_track, pieces
from services.predictor.loaded import LoadedPredictors
from services.predictor.loading import architecture_of, load_predictor
from services.predictor.plugins import Plugin, installed_plugins
from services.predictor.settings import PredictorSettings
from services.runtime.messages import MAX_INLINE_BYTES, track_from_message, track_to_message

if TYPE_CHECKING:
    from services.audio.track import DescriptorTrack
    from services.predictor.port import Predictor
    from services.runtime.device_queue import Checkpoint, DeviceQueue
    from services.runtime.metrics import DeviceMemory
    from services.runtime.model_store import ModelStore, ModelVersion

DEFAULT_PAGE_SIZE = 100
FAMILY = "predictor"
MEGABYTE = 1_000_000
# Longer is not waited for a plug-in that is described in a list.
DESCRIBED_WITHIN_SECONDS = 10.0
# Few of the figures: a page may hold a thousand predictors.
_LISTED = re.compile(r"(linear_autoregression_)?error_\d+")

Context = grpc.aio.ServicerContext[Any, Any]


class PredictorServicer(pb_grpc.PredictorServiceServicer):
    """demiurge.predictor.v1.PredictorService over a model store and plug-ins.

    Models and plug-ins run in the device queue. A plug-in is described outside of it, once, by an
    instance that serves nothing else. A model of the store goes before a plug-in of the same id, so
    that an id which a run has named keeps its meaning.
    """

    def __init__(
        self, settings: PredictorSettings, models: "ModelStore", queue: "DeviceQueue"
    ) -> None:
        self._max_steps = settings.max_steps
        self._models = models
        self._queue = queue
        self._device = open_device(settings.device, "DEMIURGE_PREDICTOR_DEVICE", ConfigurationError)
        self._plugins = installed_plugins(settings.plugins)
        self._loaded = LoadedPredictors(settings.loaded_megabytes * MEGABYTE)
        # Of plug-ins, by id.
        self._descriptions: dict[str, pb.Predictor] = {}
        self._describing: dict[str, asyncio.Task[pb.Predictor]] = {}

    def device_memory(self) -> "DeviceMemory":
        """What the device holds at this moment."""
        return device_memory(self._device)

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
        # Finding the model asks the store: under overload, refusals would hold up what is served.
        self._queue.expect_room()
        track = track_from_message(request.window)
        found = await asyncio.to_thread(self._find, request.predictor_id)
        if isinstance(found, Plugin):
            version_id = (await self._described_plugin(found, request.predictor_id)).version_id
        else:
            version_id = found.version_id

        def predict(checkpoint: "Checkpoint") -> "DescriptorTrack":
            with found.blamed() if isinstance(found, Plugin) else _blamed(found):
                return continue_track(
                    self._ready(found),
                    track,
                    request.steps,
                    seed=request.seed,
                    temperature=request.temperature,
                    checkpoint=checkpoint,
                )

        continued = await self._queue.run(predict)
        return pb.PredictDescriptorsResponse(
            tracks=[track_to_message(piece) for piece in pieces(continued, MAX_INLINE_BYTES)],
            version_id=version_id,
        )

    async def GetPredictor(
        self, request: pb.GetPredictorRequest, context: Context
    ) -> pb.GetPredictorResponse:
        """The predictor of that id."""
        found = await asyncio.to_thread(self._find, request.predictor_id)
        if not isinstance(found, Plugin):
            return pb.GetPredictorResponse(predictor=self._described(found))
        described = await self._described_plugin(found, request.predictor_id)
        return pb.GetPredictorResponse(predictor=described)

    async def ListPredictors(
        self, request: pb.ListPredictorsRequest, context: Context
    ) -> pb.ListPredictorsResponse:
        """A page of predictors; the token is the last id of the page before."""
        rest = await asyncio.to_thread(self._after, request.page_token)
        rest += await self._plugins_after(request.page_token)
        rest.sort(key=lambda predictor: predictor.id)
        size = request.page_size or DEFAULT_PAGE_SIZE
        return pb.ListPredictorsResponse(
            predictors=rest[:size],
            next_page_token=rest[size - 1].id if len(rest) > size else "",
        )

    def _find(self, predictor_id: str) -> "ModelVersion | Plugin":
        """What answers to "id" or "id@version"; blocking."""
        plugin = self._plugins.get(predictor_id.partition("@")[0])
        if plugin is not None and not self._is_stored(plugin.id):
            return plugin
        try:
            return self._models.find(FAMILY, predictor_id)
        except NotFoundError as error:
            if not self._plugins:
                raise
            there = f"{error.message}; of other packages: {', '.join(self._plugins)}"
            raise NotFoundError(there, culprit=error.culprit) from error

    def _is_stored(self, id_: str) -> bool:
        """Whether a model of the store has this id, even a damaged one; blocking."""
        try:
            self._models.find(FAMILY, id_)
        except (NotFoundError, InvalidInputError):
            return False
        except CorruptObjectError:
            pass
        return True

    def _ready(self, found: "ModelVersion | Plugin") -> "Predictor":
        """The predictor, loaded; in the device's thread."""
        if isinstance(found, Plugin):
            with found.blamed(wholly=True):
                return self._loaded.get(found.id, found.construct)
        return self._loaded.get(
            (found.version_id, found.weights_sha256),
            lambda: load_predictor(
                found.config, self._models.read_weights(found), device=self._device
            ),
            expected_bytes=found.size_bytes,
        )

    def _describe(self, plugin: Plugin) -> pb.Predictor:
        """Constructs it only for this: one that serves is of the device's thread; blocking."""
        with plugin.blamed(wholly=True):
            predictor = plugin.construct()
            described = self._descriptions[plugin.id] = pb.Predictor(
                id=plugin.id,
                version_id=plugin.version_id(predictor),
                architecture=predictor.architecture,
                window_frames=predictor.window_frames,
                feature_names=predictor.feature_names,
                sample_rate_hertz=predictor.sample_rate_hertz,
                hop_length_samples=predictor.hop_length_samples,
                max_steps=self._max_steps,
                stochastic=predictor.stochastic,
                weights_sha256=plugin.identity(predictor),
            )
            return described

    async def _described_plugin(self, plugin: Plugin, asked: str) -> pb.Predictor:
        """Its description, which all who ask for it at once wait for together.

        Raises NotFoundError if `asked`, an id, names another version than the one installed.
        """
        if plugin.id not in self._descriptions and plugin.id not in self._describing:
            task = asyncio.create_task(asyncio.to_thread(self._describe, plugin))
            self._describing[plugin.id] = task
            task.add_done_callback(lambda done: self._forget(plugin.id, done))
        if plugin.id in self._describing:
            # Whoever asked may go; the others still want it.
            await asyncio.shield(self._describing[plugin.id])
        described = self._descriptions[plugin.id]
        if asked not in {plugin.id, described.version_id}:
            raise NotFoundError(
                f"no predictor {asked!r}: {plugin.package} is installed, which is "
                f"{described.version_id!r}",
                culprit=asked,
            )
        return described

    def _forget(self, id_: str, done: "asyncio.Task[pb.Predictor]") -> None:
        del self._describing[id_]
        # Looked at, for nobody may wait for it any more.
        if not done.cancelled():
            done.exception()

    async def _plugins_after(self, token: str) -> list[pb.Predictor]:
        """Plug-ins whose ids come after `token`; those that do not work are logged and left out."""
        wanted = [plugin for plugin in self._plugins.values() if plugin.id > token]
        found = await asyncio.gather(*map(self._plugin_to_list, wanted))
        return [described for described in found if described is not None]

    async def _plugin_to_list(self, plugin: Plugin) -> pb.Predictor | None:
        try:
            if not await asyncio.to_thread(self._is_stored, plugin.id):
                async with asyncio.timeout(DESCRIBED_WITHIN_SECONDS):
                    return await self._described_plugin(plugin, plugin.id)
            reason = f"a trained model of this id goes before that of {plugin.package}"
        except ConfigurationError as error:
            reason = error.message
        except TimeoutError:
            reason = f"{plugin.package} is still constructing it"
        structlog.get_logger().warning("predictor left out", model=plugin.id, reason=reason)
        return None

    def _after(self, token: str) -> list[pb.Predictor]:
        """The models whose ids come after `token`; damaged ones are logged and left out."""
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
            feature_names=config.track_feature_names,
            sample_rate_hertz=config.sample_rate_hertz,
            hop_length_samples=config.hop_length_samples,
            max_steps=self._max_steps,
            stochastic=architecture_of(config).stochastic,
            weights_sha256=version.weights_sha256,
            step=version.step,
            figures={
                name: value for name, value in version.figures.items() if _LISTED.fullmatch(name)
            },
        )


@contextmanager
def _blamed(version: "ModelVersion") -> Iterator[None]:
    """A model that fails is told by its id: neither the request nor the service is to blame."""
    try:
        yield
    except DemiurgeError as error:
        if type(error) is not DemiurgeError:
            raise
        raise ConfigurationError(
            f"predictor {version.version_id!r} cannot be used: {error.message}; name another step "
            "or another predictor, or train it again",
            culprit=version.version_id,
        ) from error
