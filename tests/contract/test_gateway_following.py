"""`demiurge run` at a gateway that stops meanwhile and starts anew."""

from collections.abc import Iterator
from concurrent import futures

import grpc
import pytest
from demiurge.gateway.v1 import gateway_service_pb2 as pb
from demiurge.gateway.v1.gateway_service_pb2 import Run, State
from demiurge.gateway.v1.gateway_service_pb2_grpc import (
    PipelineServiceServicer,
    add_PipelineServiceServicer_to_server,
)

from services.cli import following
from services.cli.connection import client_of
from services.cli.following import follow
from services.cli.progress import Progress
from services.errors import DemiurgeError, UnavailableError
from services.gateway.ends import interruption
from services.runtime.channels import open_blocking_channel
from services.runtime.settings import NOUNS, RuntimeSettings
from services.runtime.status import remote_errors
from tests.conftest import Stack, spec
from tests.contract.gateways import Between, free_port, gateway, served_between


def test_whoever_follows_a_run_gets_its_piece_though_the_gateway_starts_anew(
    shared: Stack, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = spec(database="material", seed=300)
    between, port = Between(shared.address), free_port()

    def followed() -> Run:
        with (
            open_blocking_channel(f"127.0.0.1:{port}", RuntimeSettings()) as channel,
            remote_errors(),
            Progress() as progress,
        ):
            return follow(client_of(dict.fromkeys(NOUNS, channel)), wanted, progress)

    with served_between(between) as address, futures.ThreadPoolExecutor(1) as pool:
        between.hold("PredictDescriptors")
        with gateway(shared, f"127.0.0.1:{address}", port=port):
            following = pool.submit(followed)
            assert between.answered.wait(60)
        between.release()
        with gateway(shared, f"127.0.0.1:{address}", port=port):
            run = following.result(timeout=60)
    between.close()

    assert run.state == State.STATE_SUCCEEDED
    assert shared.get(run.id) == run
    told = capsys.readouterr().err
    assert told.count("waiting for the gateway") == 1


def test_a_gateway_that_is_not_there_is_told_at_once() -> None:
    with (
        open_blocking_channel(f"127.0.0.1:{free_port()}", RuntimeSettings()) as channel,
        Progress() as progress,
        pytest.raises(UnavailableError),
        remote_errors(),
    ):
        follow(client_of(dict.fromkeys(NOUNS, channel)), spec(), progress)


class Dying(PipelineServiceServicer):
    """A gateway that each run interrupts; every `steps` interruptions it finishes a stage more."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.created = 0

    def CreateRun(self, *_: object) -> pb.CreateRunResponse:  # noqa: N802
        self.created += 1
        return pb.CreateRunResponse(run=Run(id="run-1", state=State.STATE_RUNNING))

    def WatchRun(self, *_: object) -> Iterator[pb.WatchRunResponse]:  # noqa: N802
        finished = min((self.created - 1) // self.steps, 6)
        succeeded = [pb.Stage(state=State.STATE_SUCCEEDED)] * finished
        state = State.STATE_SUCCEEDED if finished == 6 else State.STATE_RUNNING
        yield pb.WatchRunResponse(run=Run(id="run-1", state=state, stages=succeeded))
        if finished < 6:
            left = Run(id="run-1", state=State.STATE_FAILED, failure=interruption("killed"))
            yield pb.WatchRunResponse(run=left)


def followed_at(gateway: Dying) -> Run:
    server = grpc.server(futures.ThreadPoolExecutor(2))
    add_PipelineServiceServicer_to_server(gateway, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with (
            open_blocking_channel(f"127.0.0.1:{port}", RuntimeSettings()) as channel,
            Progress() as progress,
        ):
            return follow(client_of(dict.fromkeys(NOUNS, channel)), spec(), progress)
    finally:
        server.stop(0).wait()


def test_a_run_that_ends_its_gateway_each_time_is_given_up_and_one_that_goes_on_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(following, "PAUSE_SECONDS", 0.001)
    gateway = Dying(steps=1000)
    with pytest.raises(DemiurgeError, match=r"run-1 was interrupted 5 times .* killed: create"):
        followed_at(gateway)
    assert gateway.created == following.INTERRUPTIONS

    gateway = Dying(steps=following.INTERRUPTIONS - 1)
    assert followed_at(gateway).state == State.STATE_SUCCEEDED
    assert gateway.created > 2 * following.INTERRUPTIONS
