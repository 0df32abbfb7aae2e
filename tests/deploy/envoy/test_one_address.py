"""One address: gRPC by package, JSON and gRPC-web for the gateway, errors as ours."""

import base64
import hashlib
import json
import struct
from collections.abc import Iterator

import grpc
import pytest
from demiurge.descriptor.v1.descriptor_service_pb2 import ExtractDescriptorsRequest
from demiurge.descriptor.v1.descriptor_service_pb2_grpc import DescriptorServiceStub
from demiurge.gateway.v1 import gateway_service_pb2 as messages
from demiurge.gateway.v1.gateway_service_pb2_grpc import PipelineServiceStub
from demiurge.playback.v1.playback_service_pb2 import RenderAudioRequest
from demiurge.playback.v1.playback_service_pb2_grpc import PlaybackServiceStub
from demiurge.predictor.v1.predictor_service_pb2 import ListPredictorsRequest
from demiurge.predictor.v1.predictor_service_pb2_grpc import PredictorServiceStub
from demiurge.query.v1.query_service_pb2 import ListCollectionsRequest
from demiurge.query.v1.query_service_pb2_grpc import QueryServiceStub
from demiurge.synth.v1.synth_service_pb2 import ListModelsRequest, ModelFamily
from demiurge.synth.v1.synth_service_pb2_grpc import SynthServiceStub
from google.api import annotations_pb2
from google.protobuf.json_format import MessageToDict
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from services.errors import InvalidInputError, NotFoundError
from services.runtime.settings import NOUNS
from services.runtime.status import remote_errors
from tests.conftest import sound, spec
from tests.deploy.envoy.conftest import TOKEN, Front, http
from tests.e2e.workspace import wait_until

WEB = "application/grpc-web+proto"


@pytest.fixture(scope="module")
def channel(front: Front) -> Iterator[grpc.Channel]:
    with front.channel() as opened:
        yield opened


def test_each_service_is_found_by_its_package(channel: grpc.Channel) -> None:
    family = ModelFamily.MODEL_FAMILY_UNAGAN
    assert SynthServiceStub(channel).ListModels(ListModelsRequest(family=family)).models
    assert PredictorServiceStub(channel).ListPredictors(ListPredictorsRequest()).predictors
    assert not QueryServiceStub(channel).ListCollections(ListCollectionsRequest()).collections
    assert PipelineServiceStub(channel).ListAudio(messages.ListAudioRequest(database="prediction"))
    with pytest.raises(InvalidInputError, match="audio"), remote_errors():
        DescriptorServiceStub(channel).ExtractDescriptors(ExtractDescriptorsRequest())
    with pytest.raises(InvalidInputError, match="output_prefix"), remote_errors():
        PlaybackServiceStub(channel).RenderAudio(RenderAudioRequest())


@pytest.mark.parametrize("noun", NOUNS)
def test_the_health_of_each_service_can_be_asked(channel: grpc.Channel, noun: str) -> None:
    package = "demiurge.gateway.v1.PipelineService"
    if noun != "gateway":
        package = f"demiurge.{noun}.v1.{noun.capitalize()}Service"
    # Each knows its own service alone.
    answer = HealthStub(channel).Check(
        HealthCheckRequest(service=package), metadata=(("x-demiurge-noun", noun),)
    )
    assert answer.status == HealthCheckResponse.SERVING


def test_the_gateway_answers_for_health_without_a_noun_or_token(front: Front) -> None:
    with grpc.insecure_channel(front.proxy.address) as channel:
        assert HealthStub(channel).Check(HealthCheckRequest(service="readiness")).status


def test_an_unknown_package_is_unimplemented(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        channel.unary_unary("/demiurge.nothing.v1.NothingService/GetNothing")(b"")
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "no service of Demiurge" in raised.value.details()


def test_healthz_answers_load_balancers(front: Front) -> None:
    assert http(front.proxy, "GET", "/healthz", None, {}).status == 200


def test_every_method_of_the_gateway_has_a_path() -> None:
    service = messages.DESCRIPTOR.services_by_name["PipelineService"]
    rules = [method.GetOptions().Extensions[annotations_pb2.http] for method in service.methods]
    assert all(rule.WhichOneof("pattern") for rule in rules)


def test_a_piece_is_made_by_json_alone(front: Front) -> None:
    content = sound(1.0, 7)
    header = {
        "database": "by json",
        "file_name": "sound.wav",
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    parts = [content[start : start + 65536] for start in range(0, len(content), 65536)]
    pieces = [{"data": base64.b64encode(part).decode()} for part in parts]
    uploaded = front.http("POST", "/v1/audio", json.dumps([{"header": header}, *pieces]))
    assert json.loads(uploaded.body)["audio"]["sizeBytes"] == str(len(content))
    listed = json.loads(front.http("GET", "/v1/audio/by%20json?page_size=5").body)
    assert [audio["key"] for audio in listed["audio"]] == ["audio/by json/sound.wav"]

    wanted = MessageToDict(spec(database="by json", frames=20))
    created = front.http("POST", "/v1/runs", json.dumps({"spec": wanted}))
    assert created.status == 200, created.body
    path = f"/v1/runs/{json.loads(created.body)['run']['id']}"
    watched = front.http("GET", f"{path}:watch").body.splitlines()
    last = json.loads(watched[-1])["run"]
    assert last["state"] == "STATE_SUCCEEDED", last
    assert json.loads(front.http("GET", path).body)["run"] == last
    assert last in json.loads(front.http("GET", "/v1/runs").body)["runs"]
    assert json.loads(front.http("POST", f"{path}:cancel", "{}").body)["run"] == last

    piece = last["result"]["audio"]
    lines = front.http("GET", f"/v1/objects/{piece['key']}").body.splitlines()
    received = b"".join(base64.b64decode(json.loads(line)["data"]) for line in lines)
    assert hashlib.sha256(received).hexdigest() == piece["sha256"]
    later = front.http("GET", f"/v1/objects/{piece['key']}?offset_bytes=100").body.splitlines()
    assert base64.b64decode(json.loads(later[0])["data"]) == received[100:65636]
    assert front.http("DELETE", path).body == b"{}"
    assert front.http("GET", path).status == 404


@pytest.mark.parametrize(
    ("asked", "status", "code", "said"),
    [
        (("GET", "/v1/runs/nobody", None), 404, 5, "there is no run 'nobody'"),
        (("GET", "/v1/runs/-", None), 400, 3, "run_id"),
        (("GET", "/v1/runs?page_size=5000", None), 400, 3, "page_size"),
        (("GET", "/v1/runs?pages=3", None), 400, 3, "pages"),
        (("POST", "/v1/runs", "no json"), 400, 3, "no json"),
        (("POST", "/v1/runs", "{}"), 400, 3, "spec"),
        (("GET", "/v1/nothing", None), 404, 5, "no service of Demiurge"),
    ],
)
def test_errors_come_as_google_rpc_status(
    front: Front, asked: tuple[str, str, str | None], status: int, code: int, said: str
) -> None:
    answer = front.http(*asked)
    assert answer.status == status
    told = json.loads(answer.body)
    assert told["code"] == code
    assert said in told["message"]


def test_errors_of_services_keep_their_details_in_json(front: Front) -> None:
    details = json.loads(front.http("GET", "/v1/runs/nobody").body)["details"]
    assert details[0]["@type"].endswith("google.rpc.ErrorInfo")
    assert details[0]["metadata"] == {"culprit": "nobody"}
    with front.channel() as channel, pytest.raises(NotFoundError) as raised, remote_errors():
        PipelineServiceStub(channel).GetRun(messages.GetRunRequest(run_id="nobody"))
    assert raised.value.culprit == "nobody"


def test_json_without_the_token_is_refused(front: Front) -> None:
    assert http(front.proxy, "GET", "/v1/runs", None, {}).status == 401


def framed(message: bytes) -> bytes:
    return struct.pack("!BI", 0, len(message)) + message


def test_a_browser_may_speak_grpc_web(front: Front) -> None:
    request = messages.ListAudioRequest(database="prediction").SerializeToString()
    path = "/demiurge.gateway.v1.PipelineService/ListAudio"
    answer = front.http("POST", path, framed(request), content_type=WEB)
    kind, size = struct.unpack_from("!BI", answer.body)
    listed = messages.ListAudioResponse.FromString(answer.body[5 : 5 + size])
    assert (answer.headers["content-type"], kind) == (WEB, 0)
    assert [audio.key for audio in listed.audio] == [f"audio/prediction/{n}.wav" for n in (0, 1)]
    trailers = answer.body[5 + size :]
    assert trailers[0] == 0x80
    assert b"grpc-status:0" in trailers


def test_a_message_over_the_limit_is_refused_and_the_connection_lives(front: Front) -> None:
    path = "/demiurge.gateway.v1.PipelineService/GetRun"
    with grpc.insecure_channel(
        front.proxy.address, [("grpc.max_send_message_length", -1)]
    ) as channel:
        with pytest.raises(grpc.RpcError) as raised:
            channel.unary_unary(path)(bytes(17 * 2**20), wait_for_ready=True)
        assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "larger than max" in raised.value.details()
        assert HealthStub(channel).Check(HealthCheckRequest()).status
    files = ["x" * 1000] * 17_000
    body = json.dumps({"spec": {"database": "d", "prediction": {"files": files}}})
    assert front.http("POST", "/v1/runs", body).status == 429


def test_the_log_knows_calls_by_request_id_and_no_credentials(front: Front) -> None:
    answer = front.http("GET", "/v1/runs/nobody?", x_request_id="mine-1")
    assert answer.headers["x-request-id"] == "mine-1"
    wait_until(lambda: "mine-1" in front.proxy.log.read_text())
    (line,) = [call for call in front.proxy.calls() if call["request_id"] == "mine-1"]
    assert line["method"] == "/demiurge.gateway.v1.PipelineService/GetRun"
    assert (line["path"], line["http_method"]) == ("/v1/runs/nobody", "GET")
    assert line["status"] == 404
    assert TOKEN not in front.proxy.log.read_text()


def test_prometheus_is_told_of_every_service_and_nothing_else_of_the_admin(front: Front) -> None:
    figures = front.proxy.metrics()
    for noun in NOUNS:
        assert f'envoy_cluster_upstream_rq_total{{envoy_cluster_name="{noun}"}}' in figures
    assert front.proxy.got("/quitquitquit") == b""
