"""Connections: to the addresses that are set, to `demiurge up`, or to services of one's own."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    import grpc
    from demiurge.descriptor.v1.descriptor_service_pb2_grpc import DescriptorServiceStub
    from demiurge.gateway.v1.gateway_service_pb2_grpc import PipelineServiceStub
    from demiurge.playback.v1.playback_service_pb2_grpc import PlaybackServiceStub
    from demiurge.predictor.v1.predictor_service_pb2_grpc import PredictorServiceStub
    from demiurge.query.v1.query_service_pb2_grpc import QueryServiceStub
    from demiurge.synth.v1.synth_service_pb2_grpc import SynthServiceStub

UP = "up.json"


@dataclass(frozen=True)
class Client:
    """Blocking stubs of every service."""

    synth: "SynthServiceStub"
    descriptor: "DescriptorServiceStub"
    predictor: "PredictorServiceStub"
    query: "QueryServiceStub"
    playback: "PlaybackServiceStub"
    pipeline: "PipelineServiceStub"


def client_of(channels: "dict[str, grpc.Channel]") -> Client:
    """Stubs over one channel a noun."""
    from demiurge.descriptor.v1.descriptor_service_pb2_grpc import DescriptorServiceStub
    from demiurge.gateway.v1.gateway_service_pb2_grpc import PipelineServiceStub
    from demiurge.playback.v1.playback_service_pb2_grpc import PlaybackServiceStub
    from demiurge.predictor.v1.predictor_service_pb2_grpc import PredictorServiceStub
    from demiurge.query.v1.query_service_pb2_grpc import QueryServiceStub
    from demiurge.synth.v1.synth_service_pb2_grpc import SynthServiceStub

    return Client(
        synth=SynthServiceStub(channels["synth"]),
        descriptor=DescriptorServiceStub(channels["descriptor"]),
        predictor=PredictorServiceStub(channels["predictor"]),
        query=QueryServiceStub(channels["query"]),
        playback=PlaybackServiceStub(channels["playback"]),
        pipeline=PipelineServiceStub(channels["gateway"]),
    )


@contextmanager
def connect() -> Iterator[Client]:
    """A client of the running services, or of services started for the length of this command.

    Failed calls inside raise the errors of services.errors.
    """
    from services.cli.composition import Ground, build
    from services.query.settings import QuerySettings
    from services.runtime.channels import open_blocking_channel
    from services.runtime.embedding import embedded, embedded_settings
    from services.runtime.logs import configure_logging
    from services.runtime.object_store.opening import open_store
    from services.runtime.settings import NOUNS, RuntimeSettings, load
    from services.runtime.status import remote_errors

    runtime = load(RuntimeSettings)
    with ExitStack() as stack:
        stack.enter_context(remote_errors())
        own = running_address(load(QuerySettings).folder)
        missing = [noun for noun in NOUNS if not runtime.address_of(noun)]
        if missing and not own:
            runtime = embedded_settings(runtime)
            configure_logging(
                runtime.model_copy(update={"log_level": "warning", "log_format": "console"})
            )
            ground = Ground(runtime, open_store(runtime.store))
            server = stack.enter_context(
                embedded(lambda: [build(noun, ground) for noun in missing], runtime)
            )
            own = ground.own_address = f"127.0.0.1:{server.port}"
        addresses = {noun: runtime.address_of(noun) or own for noun in NOUNS}
        channels = {
            address: stack.enter_context(open_blocking_channel(address, runtime))
            for address in set(addresses.values())
        }
        yield client_of({noun: channels[addresses[noun]] for noun in NOUNS})


def running_address(query_folder: Path) -> str:
    """Address of the `demiurge up` that holds this index, or "" if there is none alive."""
    try:
        notice = orjson.loads((query_folder / UP).read_bytes())
        os.kill(notice["pid"], 0)
    except (OSError, ValueError, KeyError):
        return ""
    return str(notice["address"])
