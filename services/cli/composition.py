"""The composition root: every service built here, from settings, and nowhere else."""

import asyncio
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from services.errors import ConfigurationError
from services.runtime.metrics import Metrics
from services.runtime.object_store.opening import open_store
from services.runtime.object_store.port import ObjectStore
from services.runtime.server import Registration
from services.runtime.settings import RuntimeSettings, load
from services.runtime.tracing import Tracing
from services.runtime.watched import WatchedStore

if TYPE_CHECKING:
    from services.query.index import VectorIndex
    from services.query.settings import QuerySettings


@dataclass
class Ground:
    """What all services of one process share."""

    runtime: RuntimeSettings
    store: ObjectStore
    metrics: Metrics
    own_address: str = ""
    """host:port of this process's own server, where it serves every noun; set once it is bound."""
    lasting: bool = False
    """Whether this process serves until it is told to stop, not only for the length of a verb."""
    tracing: Tracing = field(default_factory=Tracing)

    def address_of(self, noun: str) -> str:
        """host:port of a service: as set, or this process's own.

        Raises ConfigurationError, naming the variable, if there is neither.
        """
        address = self.runtime.address_of(noun) or self.own_address
        if not address:
            variable = f"DEMIURGE_{noun.upper()}_ADDRESS"
            raise ConfigurationError(
                f"{variable}: set it to the host:port of the {noun} service", culprit=variable
            )
        return address


def open_ground(
    runtime: RuntimeSettings, *, lasting: bool = False, tracing: Tracing | None = None
) -> Ground:
    """The ground that these settings describe: their store, watched, and the disks of this process.

    Raises what opening the store raises.
    """
    metrics = Metrics()
    for folder in {Path(tempfile.gettempdir()), runtime.home}:
        metrics.watch_disk(folder)
    store = WatchedStore(open_store(runtime), metrics)
    return Ground(runtime, store, metrics, lasting=lasting, tracing=tracing or Tracing())


def build(noun: str, ground: Ground) -> Registration:
    """One service, ready to be added to a server; its packages are imported only now."""
    return BUILDERS[noun](ground)


def _synth(ground: Ground) -> Registration:
    from demiurge.synth.v1.synth_service_pb2_grpc import add_SynthServiceServicer_to_server

    from services.runtime.device_queue import DeviceQueue
    from services.runtime.model_store import ModelStore
    from services.synth.metrics import SynthMetrics
    from services.synth.servicer import SynthServicer
    from services.synth.settings import SynthSettings

    settings = load(SynthSettings)
    queue = DeviceQueue(settings.queue_capacity, metrics=ground.metrics.queue("synth"))
    metrics = SynthMetrics(ground.metrics.registry)
    servicer = SynthServicer(settings, ground.store, ModelStore(ground.store), queue, metrics)
    ground.metrics.watch_device(servicer.device_memory)
    return Registration(
        "demiurge.synth.v1.SynthService",
        lambda server: add_SynthServiceServicer_to_server(servicer, server),
        warm_up=servicer.warm_up,
        shut_down=queue.drain,
    )


def _descriptor(ground: Ground) -> Registration:
    from demiurge.descriptor.v1.descriptor_service_pb2_grpc import (
        add_DescriptorServiceServicer_to_server,
    )

    from services.descriptor.servicer import DescriptorServicer
    from services.descriptor.settings import DescriptorSettings

    metrics = ground.metrics.queue("descriptor")
    servicer = DescriptorServicer(load(DescriptorSettings), ground.store, metrics)
    return Registration(
        "demiurge.descriptor.v1.DescriptorService",
        lambda server: add_DescriptorServiceServicer_to_server(servicer, server),
        warm_up=servicer.warm_up,
        shut_down=servicer.shut_down,
    )


def _predictor(ground: Ground) -> Registration:
    from demiurge.predictor.v1.predictor_service_pb2_grpc import (
        add_PredictorServiceServicer_to_server,
    )

    from services.predictor.servicer import PredictorServicer
    from services.predictor.settings import PredictorSettings
    from services.runtime.device_queue import DeviceQueue
    from services.runtime.model_store import ModelStore

    settings = load(PredictorSettings)
    queue = DeviceQueue(settings.queue_capacity, metrics=ground.metrics.queue("predictor"))
    servicer = PredictorServicer(settings, ModelStore(ground.store), queue)
    ground.metrics.watch_device(servicer.device_memory)
    return Registration(
        "demiurge.predictor.v1.PredictorService",
        lambda server: add_PredictorServiceServicer_to_server(servicer, server),
        shut_down=queue.drain,
    )


def _query(ground: Ground) -> Registration:
    from demiurge.query.v1.query_service_pb2_grpc import add_QueryServiceServicer_to_server

    from services.query.servicer import QueryServicer
    from services.query.settings import QuerySettings
    from services.query.watched import WatchedIndex

    settings = load(QuerySettings)
    index = WatchedIndex(_index(settings, ground.runtime), ground.metrics.registry)
    servicer = QueryServicer(settings, ground.store, index)
    return Registration(
        "demiurge.query.v1.QueryService",
        lambda server: add_QueryServiceServicer_to_server(servicer, server),
        shut_down=lambda: asyncio.to_thread(index.close),
    )


def _index(settings: "QuerySettings", runtime: RuntimeSettings) -> "VectorIndex":
    """The index on a Qdrant server, where one is set, or the embedded one."""
    if not settings.url:
        from services.query.edge import EdgeIndex

        return EdgeIndex(settings.folder)
    from services.query.connection import Connection, connect
    from services.query.server import ServerIndex

    client = connect(
        settings.url,
        settings.grpc_port,
        api_key=settings.api_key(allow_unprotected=runtime.allow_insecure_bind),
        authorities=settings.authorities(),
        timeout_seconds=settings.timeout_seconds,
    )
    return ServerIndex(Connection(client, settings.url))


def _playback(ground: Ground) -> Registration:
    from demiurge.playback.v1.playback_service_pb2_grpc import add_PlaybackServiceServicer_to_server

    from services.playback.servicer import PlaybackServicer
    from services.playback.settings import PlaybackSettings

    servicer = PlaybackServicer(load(PlaybackSettings), ground.store)
    return Registration(
        "demiurge.playback.v1.PlaybackService",
        lambda server: add_PlaybackServiceServicer_to_server(servicer, server),
        shut_down=servicer.shut_down,
    )


def _gateway(ground: Ground) -> Registration:
    from demiurge.gateway.v1.gateway_service_pb2_grpc import add_PipelineServiceServicer_to_server

    from services.gateway.audio_library import AudioLibrary
    from services.gateway.live import LiveRuns
    from services.gateway.metrics import GatewayMetrics
    from services.gateway.patience import Patience
    from services.gateway.peers import Peers
    from services.gateway.pipeline import Pipeline
    from services.gateway.run_store import RunStore
    from services.gateway.runs import Runs
    from services.gateway.servicer import GatewayServicer
    from services.gateway.settings import GatewaySettings

    settings = load(GatewaySettings)
    patience = Patience(settings.patience_seconds)
    peers = Peers(
        ground.address_of,
        ground.runtime,
        settings.call_timeout_seconds,
        patience,
        settings.allowed_predictors(ground.runtime.bind_address),
    )
    library = AudioLibrary(
        ground.store,
        max_upload_bytes=settings.max_upload_bytes,
        uploads=settings.uploads,
        downloads=settings.downloads,
    )
    records = RunStore(ground.store)
    live = LiveRuns(records, lease_seconds=settings.lease_seconds)
    metrics = GatewayMetrics(ground.metrics.registry)
    pipeline = Pipeline(
        ground.store,
        records,
        peers,
        patience,
        concurrency=settings.concurrency,
        metrics=metrics,
        tracing=ground.tracing,
    )
    runs = Runs(
        records,
        live,
        library=library,
        peers=peers,
        pipeline=pipeline,
        patience=patience,
        metrics=metrics,
        tracing=ground.tracing,
    )
    servicer = GatewayServicer(
        runs,
        library,
        upload_idle_seconds=settings.upload_idle_seconds,
        # A verb's own services end with it, and should do nothing else.
        resumes=settings.resume_runs and ground.lasting,
    )

    async def shut_down() -> None:
        await runs.close()
        await peers.close()

    return Registration(
        "demiurge.gateway.v1.PipelineService",
        lambda server: add_PipelineServiceServicer_to_server(servicer, server),
        warm_up=servicer.warm_up,
        drain=runs.drain,
        shut_down=shut_down,
    )


BUILDERS: Mapping[str, Callable[[Ground], Registration]] = {
    "synth": _synth,
    "descriptor": _descriptor,
    "predictor": _predictor,
    "query": _query,
    "playback": _playback,
    "gateway": _gateway,
}
