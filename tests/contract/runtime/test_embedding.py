"""A server inside another program."""

import time

import grpc
import pytest
from demiurge.query.v1 import query_service_pb2_grpc as query_grpc

from services import errors
from services.runtime.call import Call, serving
from services.runtime.channels import open_blocking_channel
from services.runtime.embedding import embedded, embedded_settings
from services.runtime.metrics import Metrics
from services.runtime.server import Registration
from services.runtime.status import error_from_rpc
from tests.contract.runtime.conftest import SETTINGS, QueryServicer, get, registration


def test_an_embedded_server_answers_a_blocking_channel() -> None:
    servicers: list[QueryServicer] = []

    def build() -> list[Registration]:
        servicers.append(QueryServicer())
        return [registration(servicers[0])]

    with (
        embedded(build, embedded_settings(SETTINGS), Metrics()) as server,
        open_blocking_channel(f"127.0.0.1:{server.port}", SETTINGS) as channel,
    ):
        stub = query_grpc.QueryServiceStub(channel)
        with serving(Call("r-9", time.monotonic() + 30)):
            assert stub.GetCollection(get("fails-once")).collection.id == "fails-once"
        with pytest.raises(grpc.RpcError) as caught:
            stub.GetCollection(get("NOT_FOUND"))
        error = error_from_rpc(caught.value)
    assert type(error) is errors.NotFoundError
    assert error.culprit == "zaunkönig.wav"
    assert [call.request_id for call in servicers[0].seen[:2]] == ["r-9"] * 2
    assert 0 < servicers[0].seen[0].seconds_left <= 30


def test_an_embedded_service_calls_its_neighbours_on_the_same_port() -> None:
    servicers: list[QueryServicer] = []

    def build() -> list[Registration]:
        servicers.append(QueryServicer())
        return [registration(servicers[0])]

    with (
        embedded(build, embedded_settings(SETTINGS), Metrics()) as server,
        open_blocking_channel(f"127.0.0.1:{server.port}", SETTINGS) as channel,
    ):
        servicers[0].onward = f"127.0.0.1:{server.port}"
        stub = query_grpc.QueryServiceStub(channel)
        for _ in range(20):
            assert stub.GetCollection(get("onward:x")).collection.id == "x"
    assert servicers[0].calls == ["onward:x", "x"] * 20


def test_what_an_embedded_start_raises_is_raised_here() -> None:
    def build() -> list[Registration]:
        raise errors.ConfigurationError("no")

    with pytest.raises(errors.ConfigurationError), embedded(build, SETTINGS, Metrics()):
        pass
