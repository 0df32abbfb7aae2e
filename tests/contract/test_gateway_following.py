"""`demiurge run` at a gateway that stops meanwhile and starts anew."""

from concurrent import futures

import pytest
from demiurge.gateway.v1.gateway_service_pb2 import Run, State

from services.cli.connection import client_of
from services.cli.following import follow
from services.cli.progress import Progress
from services.errors import UnavailableError
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
