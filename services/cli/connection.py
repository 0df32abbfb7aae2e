"""Connections: to the addresses that are set, to `demiurge up`, or to services of one's own."""

import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from services.cli.notice import found, posted, settings_for
from services.errors import ConfigurationError, UnavailableError
from services.runtime.settings import NOUNS, RuntimeSettings

if TYPE_CHECKING:
    import grpc
    from demiurge.descriptor.v1.descriptor_service_pb2_grpc import DescriptorServiceStub
    from demiurge.gateway.v1.gateway_service_pb2_grpc import PipelineServiceStub
    from demiurge.playback.v1.playback_service_pb2_grpc import PlaybackServiceStub
    from demiurge.predictor.v1.predictor_service_pb2_grpc import PredictorServiceStub
    from demiurge.query.v1.query_service_pb2_grpc import QueryServiceStub
    from demiurge.synth.v1.synth_service_pb2_grpc import SynthServiceStub

SECONDS_BETWEEN_TRIES = 0.5


@dataclass(frozen=True)
class Client:
    """Blocking stubs of every service."""

    synth: "SynthServiceStub"
    descriptor: "DescriptorServiceStub"
    predictor: "PredictorServiceStub"
    query: "QueryServiceStub"
    playback: "PlaybackServiceStub"
    pipeline: "PipelineServiceStub"


def client_of(channels: "Mapping[str, grpc.Channel]") -> Client:
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


def silence_grpc() -> None:
    """Keeps gRPC's own words off standard error: errors are told by ours. Before it is imported."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


@contextmanager
def connect(*nouns: str, lasting: bool = True, predictor_address: str = "") -> Iterator[Client]:
    """A client of the running services, or of services started for the length of this command.

    Only those of `nouns` are started, all if none are named. Unless `lasting`, services that
    another command holds for its own length will do, too. The predictor is asked at
    `predictor_address`, where that is given, and sent no token there. Failed calls inside raise
    the errors of services.errors.
    """
    silence_grpc()
    import grpc

    from services.cli.waiting import Waiting
    from services.query.settings import QuerySettings
    from services.runtime.channels import open_blocking_channel
    from services.runtime.embedding import embedded_settings
    from services.runtime.settings import load
    from services.runtime.status import remote_errors

    runtime = load(RuntimeSettings)
    if predictor_address:
        own_predictor = {"predictor_address": predictor_address, "predictor_token_file": None}
        runtime = runtime.model_copy(update=own_predictor)
    folder = load(QuerySettings).folder
    with ExitStack() as stack:
        stack.enter_context(remote_errors())
        missing = [noun for noun in nouns or NOUNS if not runtime.address_of(noun)]
        if not nouns:
            _refuse_two_kinds(missing, runtime)
        own, own_settings, waiting = "", embedded_settings(runtime), False
        while missing and not own:
            notice = found(folder, runtime)
            if notice and (notice.lasting or not lasting):
                own, own_settings = notice.address, settings_for(notice, runtime)
                break
            try:
                own = stack.enter_context(_own_services(missing, runtime, folder))
            except UnavailableError as error:
                if not _is_taken(error):
                    raise
                if not waiting:
                    typer.echo(
                        f"waiting: another command has the index in {folder} open (if it is "
                        "`demiurge serve query`, set DEMIURGE_QUERY_ADDRESS to it; Ctrl-C stops)",
                        err=True,
                    )
                waiting = True
                time.sleep(SECONDS_BETWEEN_TRIES)
        # Stubs that nobody asked for need an address, too.
        spare = own or runtime.address_of((nouns or NOUNS)[0])
        channels: dict[tuple[str, str], grpc.Channel] = {}
        by_noun = {}
        for noun in NOUNS:
            address = runtime.address_of(noun) or spare
            settings = own_settings if address == own else runtime
            # Services at one address may be sent another token, or none.
            place = (address, settings.token_field_of(noun))
            if place not in channels:
                channel = stack.enter_context(open_blocking_channel(address, settings, noun=noun))
                plaintext = address != own and not settings.tls_ca
                waiting_for = Waiting(
                    address, lambda text: typer.echo(text, err=True), plaintext=plaintext
                )
                channels[place] = grpc.intercept_channel(channel, waiting_for)
            by_noun[noun] = channels[place]
        yield client_of(by_noun)


@contextmanager
def _own_services(nouns: list[str], runtime: RuntimeSettings, folder: Path) -> Iterator[str]:
    """Serves these nouns inside this process; the address."""
    from services.cli.composition import build, open_ground
    from services.runtime.embedding import embedded, embedded_settings
    from services.runtime.logs import configure_logging

    settings = embedded_settings(runtime)
    configure_logging(settings.model_copy(update={"log_level": "warning", "log_format": "console"}))
    # How a run failed is told by the command that follows it.
    logging.getLogger("services.gateway.ends").setLevel(logging.ERROR)
    # By the ground's settings the gateway calls the others: alone, it has none beside it.
    ground = open_ground(runtime if nouns == ["gateway"] else settings)
    # The index first: whether it is free is known at once, and the others take seconds to load.
    order = sorted(nouns, key=lambda noun: noun != "query")
    with ExitStack() as stack:
        server = stack.enter_context(
            embedded(lambda: [build(noun, ground) for noun in order], settings, ground.metrics)
        )
        ground.own_address = f"127.0.0.1:{server.port}"
        if set(nouns) == set(NOUNS):
            stack.enter_context(posted(folder, ground.own_address, runtime, lasting=False))
        yield ground.own_address


def _refuse_two_kinds(missing: list[str], runtime: RuntimeSettings) -> None:
    """A gateway calls all services alike, and those inside this process have no TLS."""
    if runtime.tls_ca and "gateway" in missing and 1 < len(missing) < len(NOUNS):
        variables = ", ".join(f"DEMIURGE_{noun.upper()}_ADDRESS" for noun in missing)
        raise ConfigurationError(
            f"DEMIURGE_TLS_CA: with it, set the addresses of all services or of none; {variables} "
            "are not set",
            culprit="DEMIURGE_TLS_CA",
        )


def _is_taken(error: UnavailableError) -> bool:
    return getattr(error.__cause__, "sqlite_errorname", "") == "SQLITE_BUSY"
