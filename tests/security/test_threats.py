"""What callers and stored models may try, each through the real services."""

import json
import struct
from pathlib import Path
from typing import Any

import grpc
import pytest
from demiurge.audio.v1.audio_pb2 import ObjectRef
from demiurge.descriptor.v1.descriptor_service_pb2 import ExtractDescriptorsRequest
from demiurge.gateway.v1.gateway_service_pb2 import (
    DownloadAudioRequest,
    GetRunRequest,
    ListAudioRequest,
)
from demiurge.gateway.v1.gateway_service_pb2_grpc import PipelineServiceStub
from demiurge.playback.v1 import playback_service_pb2 as playback
from demiurge.predictor.v1.predictor_service_pb2 import (
    GetPredictorRequest,
    PredictDescriptorsRequest,
)
from demiurge.synth.v1 import synth_service_pb2 as synth

from services.audio.track import DescriptorTrack
from services.descriptor import mfcc
from services.errors import DemiurgeError, InvalidInputError, NotFoundError
from services.runtime.messages import track_to_message
from tests.conftest import (
    MELGAN,
    PREDICTOR,
    RATE,
    UNAGAN,
    WINDOW_FRAMES,
    Stack,
    samples,
    sound,
    spec,
)

SECRET_KEYS = [
    f"models/melgan/{MELGAN}/2/model.safetensors",
    f"models/melgan/{MELGAN}/2/config.json",
]
KEYS_THAT_LEAVE = [
    "audio/../models/melgan/voice/best.json",
    "audio/birds/../../runs/x/run.json",
    "audio//etc/passwd",
    "audio/birds/..",
    "audio/a\0b.wav",
    "audio/a\nb.wav",
    "audio/a\x1b[31m.wav",
    "audio\\..\\models",
    "audio/" + "a" * 1_100,
]
# Look like dots and slashes, and are but letters of a name.
UNICODE = ["audio/birds/\uff0e\uff0e\u2215models.wav", "audio/\u202ebirds/%2e%2e%2fmodels.wav"]


def download(stack: Stack, key: str) -> bytes:
    answers = stack.client.pipeline.DownloadAudio(DownloadAudioRequest(key=key))
    return b"".join(answer.data for answer in stack.call(lambda _: list(answers), None))


@pytest.mark.parametrize(
    "key",
    [
        *SECRET_KEYS,
        *KEYS_THAT_LEAVE,
        "checkpoints/melgan/x/state.pt",
        "runs/x/run.json",
        "runs/x/request.json",
        "runs/x/predictions/../run.json",
        "markers/synth/x.json",
        "corrupt/audio/x.wav",
        "/etc/passwd",
        "/run/secrets/token",
        "file:///etc/passwd",
        "s3://other/bucket",
        "",
    ],
)
def test_nothing_but_sound_and_what_was_made_of_it_can_be_downloaded(
    shared: Stack, key: str
) -> None:
    with pytest.raises(DemiurgeError) as refused:
        download(shared, key)
    assert refused.value.reason in {"INVALID_INPUT", "OBJECT_KEY_INVALID"}


@pytest.mark.parametrize("key", UNICODE)
def test_names_that_only_look_like_paths_are_names(shared: Stack, key: str) -> None:
    with pytest.raises(NotFoundError):
        download(shared, key)


@pytest.mark.parametrize("database", ["..", ".", "a/b", "a\\b", "a\0", "a\nb", "", "x" * 300])
@pytest.mark.parametrize("name", ["wren.wav", "..", "../../runs/x/run.json"])
def test_uploads_land_in_their_database_or_nowhere(shared: Stack, database: str, name: str) -> None:
    before = shared.files().keys()
    with pytest.raises(DemiurgeError) as refused:
        shared.upload(database, name, sound(0.1))
    assert refused.value.reason in {"INVALID_INPUT", "OBJECT_KEY_INVALID"}
    assert shared.files().keys() == before


@pytest.mark.parametrize("name", ["runs", "corrupt", "models", ".unfinished", "%2e%2e"])
def test_databases_of_any_name_are_only_databases(shared: Stack, name: str) -> None:
    reference = shared.upload(name, "run.json", b"{}")

    assert reference.key == f"audio/{name}/run.json"


def test_a_link_in_the_store_leads_nowhere(shared: Stack, tmp_path: Path) -> None:
    (tmp_path / "secret.wav").write_bytes(b"s3cr3t")
    database = shared.folder / "store" / "audio" / "linked"
    database.mkdir(parents=True)
    (database / "x.wav").symlink_to(tmp_path / "secret.wav")

    with pytest.raises(DemiurgeError):
        download(shared, "audio/linked/x.wav")


def reference(stack: Stack, key: str) -> ObjectRef:
    sha256 = stack.store.stat(key).sha256 if key in SECRET_KEYS else "0" * 64
    return ObjectRef(key=key, sha256=sha256, size_bytes=1, media_type="audio/wav")


@pytest.mark.parametrize("key", [*SECRET_KEYS, *KEYS_THAT_LEAVE, "/etc/passwd"])
def test_what_is_no_sound_can_be_neither_described_nor_rendered_nor_resung(
    shared: Stack, key: str
) -> None:
    audio = reference(shared, key)
    matches = playback.RenderAudioRequest(output_prefix="renders/r").matches
    matches.sample_rate_hertz, matches.hop_length_samples, matches.neighbors = 44_100, 1_024, 1
    matches.sources.append(audio)
    matches.source_indices.append(0)
    matches.start_samples.append(0)
    matches.distances.append(0.0)
    asked: list[tuple[Any, Any]] = [
        (shared.client.descriptor.ExtractDescriptors, ExtractDescriptorsRequest(audio=audio)),
        (
            shared.client.playback.RenderAudio,
            playback.RenderAudioRequest(matches=matches, output_prefix="renders/r"),
        ),
        (
            shared.client.synth.ResynthesizeAudio,
            synth.ResynthesizeAudioRequest(
                audio=audio, melgan_model_id=MELGAN, output_key="audio/copies/x.wav"
            ),
        ),
    ]
    for method, request in asked:
        with pytest.raises(InvalidInputError) as refused:
            shared.call(method, request)
        # Neither content nor a place on the machine.
        assert str(shared.folder) not in refused.value.message
        assert "weights_sha256" not in refused.value.message
    assert not [name for name in shared.files() if name.startswith(("renders/", "audio/copies"))]


@pytest.mark.parametrize(
    "prefix",
    ["runs/x", "models/melgan/voice/3", "renders/../runs", "renders/a/b", "renders/", "/renders/a"],
)
def test_pieces_are_written_to_renders_alone(shared: Stack, prefix: str) -> None:
    with pytest.raises(InvalidInputError):
        shared.call(
            shared.client.playback.RenderAudio, playback.RenderAudioRequest(output_prefix=prefix)
        )


@pytest.mark.parametrize(
    "key", ["models/melgan/voice/best.json", "audio/../runs/x.wav", "audio/a/b/c.wav", "x.wav"]
)
def test_sounds_are_generated_into_databases_alone(shared: Stack, key: str) -> None:
    request = synth.GenerateAudioRequest(
        unagan_model_id=UNAGAN, melgan_model_id=MELGAN, output_key=key
    )
    request.duration.nanos = 100_000_000
    with pytest.raises(InvalidInputError):
        shared.call(shared.client.synth.GenerateAudio, request)


IDS = ["a/b", "../x", "a\0", "a\nb", "x" * 200, "a b", "\u202ea", "a;rm -rf", "@", "a@b@c", "-x"]


@pytest.mark.parametrize("identifier", IDS)
def test_ids_are_plain_words(shared: Stack, identifier: str) -> None:
    asked: list[tuple[Any, Any]] = [
        (shared.client.pipeline.GetRun, GetRunRequest(run_id=identifier)),
        (shared.client.synth.GetModel, synth.GetModelRequest(model_id=identifier)),
        (shared.client.predictor.GetPredictor, GetPredictorRequest(predictor_id=identifier)),
    ]
    for method, request in asked:
        with pytest.raises((InvalidInputError, NotFoundError)):
            shared.call(method, request)


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254:80",
        "metadata.google.internal:80",
        "[fe80::1]:80",
        "[::ffff:169.254.169.254]:80",
        "2852039166:80",
        "0x7f000001:22",
        "0:6334",
        "localtest.me:6334",
        "unix:/var/run/docker.sock",
        "unix:///var/run/docker.sock",
        "http://127.0.0.1:80",
        "ipv4:169.254.169.254:80",
        "dns:///169.254.169.254:80",
        "user@127.0.0.1:80",
        "127.0.0.1:80/path",
        "127.0.0.1.example.org:80",
    ],
)
def test_the_gateway_connects_nowhere_that_its_operator_did_not_name(
    shared: Stack, address: str
) -> None:
    wanted = spec(database="material", predictor=PREDICTOR)
    wanted.prediction.predictor_address = address
    with pytest.raises(InvalidInputError):
        shared.create(wanted)


def raw(stack: Stack, method: str, content: bytes) -> str:
    """The code of a call that sends just these bytes."""
    with grpc.insecure_channel(stack.address, [("grpc.max_send_message_length", -1)]) as channel:
        call = channel.unary_unary(method, lambda sent: sent, lambda got: got)
        try:
            call(content, timeout=30)
        except grpc.RpcError as error:
            return str(error.code().name)  # type: ignore[attr-defined]
    return "OK"


def test_messages_that_are_bombs_are_refused_and_the_service_goes_on(shared: Stack) -> None:
    create = "/demiurge.gateway.v1.PipelineService/CreateRun"
    nested = b""
    for _ in range(5_000):
        nested = b"\x0a" + varint(len(nested)) + nested
    bombs = {
        "too large": b"\0" * (17 << 20),
        "nested": nested,
        "claims 2 GB": b"\x0a\xff\xff\xff\xff\x07",
        "groups": b"\x0b" * 100_000,
        "garbage": bytes(range(256)) * 100,
        "empty": b"",
    }
    for what, content in bombs.items():
        code = raw(shared, create, content)
        # UNKNOWN is gRPC's word for what is no message.
        assert code in {"INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "INTERNAL", "UNKNOWN"}, what
    assert shared.call(shared.client.pipeline.ListAudio, ListAudioRequest(database="material"))


def varint(number: int) -> bytes:
    octets = bytearray()
    while number > 127:
        octets.append(number & 127 | 128)
        number >>= 7
    return bytes([*octets, number])


def test_lines_of_a_log_cannot_be_forged(shared: Stack, capfd: pytest.CaptureFixture[str]) -> None:
    forged = 'x\n{"event": "serving", "level": "info"}'
    stub = PipelineServiceStub(grpc.insecure_channel(shared.address))
    for metadata in ((("x-request-id", 'a"} {"event":"forged"'),), ()):
        with pytest.raises(grpc.RpcError):
            stub.GetRun(GetRunRequest(run_id=forged), metadata=metadata)
    said = capfd.readouterr()
    assert '\n{"event": "serving"' not in said.out + said.err


HUGE = 10**9
CLAIMS: list[tuple[str, str, dict[str, Any]]] = [
    ("melgan", MELGAN, {"ngf": HUGE}),
    ("melgan", MELGAN, {"ngf": 50_000}),
    ("melgan", MELGAN, {"n_residual_layers": HUGE}),
    ("melgan", MELGAN, {"ratios": [2] * 10**6}),
    ("melgan", MELGAN, {"ngf": 1e400}),
    ("unagan", UNAGAN, {"middle_dim": HUGE}),
    ("unagan", UNAGAN, {"middle_dim": 100_000}),
    ("unagan", UNAGAN, {"z_dim": HUGE}),
    ("unagan", UNAGAN, {"z_scale_factors": [2] * 10**6}),
    ("predictor", PREDICTOR, {"shape": {"hidden_size": HUGE}}),
    ("predictor", PREDICTOR, {"shape": {"hidden_size": 100_000}}),
    ("predictor", PREDICTOR, {"shape": {"num_layers": HUGE}}),
]


def planted(stack: Stack, number: int, family: str, model: str, claim: dict[str, Any]) -> str:
    """A model in the store like a good one, whose config claims something else."""
    name = f"evil{number}"
    here, there = f"models/{family}/{model}", f"models/{family}/{name}"
    config = json.loads(stack.store.read(f"{here}/2/config.json"))
    for key, value in claim.items():
        if isinstance(value, dict):
            config[key] |= value
        else:
            config[key] = value
    stack.store.put(f"{there}/2/config.json", json.dumps(config).encode())
    weights = stack.store.read(f"{here}/2/model.safetensors")
    stack.store.put(f"{there}/2/model.safetensors", weights)
    stack.store.put(f"{there}/best.json", b'{"step": 2}')
    return name


def use(stack: Stack, family: str, name: str) -> None:
    if family == "predictor":
        values, _ = mfcc.extract(samples(1.0, 1), mfcc.ExtractionSettings())
        track = DescriptorTrack(mfcc.FEATURE_NAMES, values[:WINDOW_FRAMES], RATE, 1_024, "x.wav")
        asked = PredictDescriptorsRequest(
            predictor_id=name, window=track_to_message(track), steps=1
        )
        stack.call(stack.client.predictor.PredictDescriptors, asked)
        return
    request = synth.GenerateAudioRequest(
        unagan_model_id=name if family == "unagan" else UNAGAN,
        melgan_model_id=name if family == "melgan" else MELGAN,
        output_key=f"audio/evil/{name}.wav",
    )
    request.duration.nanos = 100_000_000
    stack.call(stack.client.synth.GenerateAudio, request)


@pytest.mark.parametrize("number", range(len(CLAIMS)))
def test_a_model_that_claims_to_be_huge_is_refused_before_it_is_built(
    shared: Stack, number: int
) -> None:
    family, model, claim = CLAIMS[number]
    name = planted(shared, number, family, model, claim)

    with pytest.raises(DemiurgeError) as refused:
        use(shared, family, name)
    assert refused.value.reason in {"CORRUPT_OBJECT", "INVALID_INPUT", "SETTINGS_MISMATCH"}
    use(shared, family, model)


@pytest.mark.parametrize(
    "weights",
    [
        struct.pack("<Q", 2**63),
        struct.pack("<Q", 10**9) + b"{",
        b"\x02\0\0\0\0\0\0\0{}",
        b'\x60\0\0\0\0\0\0\0{"a":{"dtype":"F32","shape":[1000000000,1000000000],"data_offsets":[0,4]}}'
        + b" " * 50,
        b"PK\x03\x04" + b"\0" * 100,
        b"\x80\x04c__builtin__\neval\n",
        b"",
    ],
)
@pytest.mark.parametrize("family", ["melgan", "unagan", "predictor"])
def test_weights_with_lying_headers_are_refused(shared: Stack, family: str, weights: bytes) -> None:
    model = {"melgan": MELGAN, "unagan": UNAGAN, "predictor": PREDICTOR}[family]
    name = planted(shared, 100 + len(weights), family, model, {})
    stored = shared.store.put(f"models/{family}/{name}/2/model.safetensors", weights)
    key = f"models/{family}/{name}/2/config.json"
    config = json.loads(shared.store.read(key))
    config |= {"weights_sha256": stored.sha256, "weights_size_bytes": stored.size_bytes}
    shared.store.put(key, json.dumps(config).encode())

    with pytest.raises(DemiurgeError) as refused:
        use(shared, family, name)
    assert refused.value.reason == "CORRUPT_OBJECT"


@pytest.mark.parametrize(
    "config",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"{}",
        b"[]",
        b"null",
        b"\xff",
        b'{"weights_sha256": NaN}',
    ],
)
def test_configs_that_are_bombs_are_refused(shared: Stack, config: bytes) -> None:
    name = planted(shared, 200 + len(config), "melgan", MELGAN, {})
    shared.store.put(f"models/melgan/{name}/2/config.json", config)

    with pytest.raises(DemiurgeError) as refused:
        use(shared, "melgan", name)
    assert refused.value.reason in {"CORRUPT_OBJECT", "SETTINGS_MISMATCH"}
