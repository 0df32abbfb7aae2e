"""PredictorService over a real channel, with real stores, models and errors."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import numpy as np
import pytest
import torch
from demiurge.audio.v1 import audio_pb2
from demiurge.predictor.v1 import predictor_service_pb2 as pb
from demiurge.predictor.v1 import predictor_service_pb2_grpc as pb_grpc
from safetensors.torch import save

from services.audio.track import DescriptorTrack
from services.errors import (
    ConfigurationError,
    CorruptObjectError,
    DemiurgeError,
    InvalidInputError,
    NotFoundError,
    SettingsMismatchError,
    TimeExceededError,
    WindowTooLongError,
)
from services.learning.device import open_device
from services.predictor.config import Deltas, PredictorConfig
from services.predictor.continuation import continue_track
from services.predictor.loading import ARCHITECTURES, load_predictor
from services.predictor.networks.network import NetworkShape
from services.predictor.servicer import PredictorServicer
from services.predictor.settings import PredictorSettings
from services.runtime.device_queue import DeviceQueue
from services.runtime.interceptors.errors import ErrorInterceptor
from services.runtime.interceptors.request_id import RequestIdInterceptor
from services.runtime.messages import MAX_INLINE_BYTES, track_from_message, track_to_message
from services.runtime.metrics import Metrics
from services.runtime.model_store import ModelStore, ModelVersion
from services.runtime.object_store.folder import FolderStore
from services.runtime.status import error_from_rpc

NAMES = tuple(sorted(f"mfcc{i}" for i in range(39)))
NUMERIC = tuple(f"mfcc{i}" for i in range(39))
WINDOW = 5
MAX_STEPS = 8000


@dataclass
class Service:
    stub: "pb_grpc.PredictorServiceAsyncStub"
    models: ModelStore
    store: FolderStore
    queue: DeviceQueue


def trained(
    models: ModelStore,
    id_: str,
    step: int = 1,
    architecture: str = "LSTM",
    deltas: Deltas = "predicted",
    *,
    weight: float | None = None,
) -> ModelVersion:
    """A model of the store; all its weights are `weight` where one is given."""
    torch.manual_seed(step)
    names = NUMERIC[:13] if deltas == "computed" else NAMES
    shape = NetworkShape(len(names), 20, 1, nhead=5, dim_feedforward=8, dim_pos_encoding=26)
    network = ARCHITECTURES[architecture](shape)
    if weight is not None:
        for each in network.parameters():
            torch.nn.init.constant_(each, weight)
    config = PredictorConfig(
        architecture=architecture,
        shape=shape,
        window_frames=WINDOW,
        forecast_frames=3,
        feature_names=names,
        means=tuple(float(i) for i in range(len(names))),
        standard_deviations=tuple(1.0 + i for i in range(len(names))),
        sample_rate_hertz=44100,
        hop_length_samples=1024,
        deltas=deltas,
    )
    weights = save(network.state_dict())
    return models.save(
        "predictor", id_, step, weights=weights, config=config.to_json(), card="", best=True
    )


@asynccontextmanager
async def serving(folder: Path, **settings: object) -> AsyncIterator[Service]:
    """The service over a store in `folder`."""
    store = FolderStore(folder)
    models = ModelStore(store)
    queue = DeviceQueue(4, metrics=Metrics().queue("predictor"))
    given = PredictorSettings(device="cpu", max_steps=MAX_STEPS, **settings)  # type: ignore[arg-type]
    server = grpc.aio.server(interceptors=(RequestIdInterceptor(), ErrorInterceptor()))
    pb_grpc.add_PredictorServiceServicer_to_server(PredictorServicer(given, models, queue), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Service(pb_grpc.PredictorServiceStub(channel), models, store, queue)
    await server.stop(None)
    await queue.drain()


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    async with serving(tmp_path) as opened:
        yield opened


def window(frames: int = 9, names: tuple[str, ...] = NUMERIC) -> DescriptorTrack:
    values = np.random.default_rng(1).normal(size=(frames, len(names))).astype(np.float32)
    return DescriptorTrack(names, values, 44100, 1024, "owl.wav")


def request(
    id_: str, track: DescriptorTrack, steps: int = 7, temperature: float = 0.0, seed: int = 0
) -> pb.PredictDescriptorsRequest:
    return pb.PredictDescriptorsRequest(
        predictor_id=id_,
        window=track_to_message(track),
        steps=steps,
        temperature=temperature,
        seed=seed,
    )


async def refused(call: "grpc.aio.UnaryUnaryCall[object, object]") -> DemiurgeError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return error_from_rpc(raised.value)


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
async def test_a_window_is_continued_as_the_model_does_in_its_own_columns(
    service: Service, architecture: str
) -> None:
    version = trained(service.models, "wren", architecture=architecture)
    answer = await service.stub.PredictDescriptors(request("wren", window()))
    [message] = answer.tracks
    predictor = load_predictor(version.config, service.models.read_weights(version))
    expected = continue_track(predictor, window(), 7)
    told = track_from_message(message)
    assert told.feature_names == NUMERIC
    assert (told.sample_rate_hertz, told.hop_length_samples) == (44100, 1024)
    np.testing.assert_array_equal(told.values, expected.values)
    assert answer.version_id == "wren@1"


async def test_columns_count_by_name_and_not_by_place(service: Service) -> None:
    trained(service.models, "wren")
    numeric = await service.stub.PredictDescriptors(request("wren", window()))
    by_string = await service.stub.PredictDescriptors(request("wren", window().ordered(NAMES)))
    assert tuple(by_string.tracks[0].feature_names) == NAMES
    np.testing.assert_array_equal(
        track_from_message(by_string.tracks[0]).ordered(NUMERIC).values,
        track_from_message(numeric.tracks[0]).values,
    )


async def test_long_answers_come_in_several_tracks_to_be_joined(service: Service) -> None:
    trained(service.models, "wren")
    answer = await service.stub.PredictDescriptors(request("wren", window(), steps=7500))
    assert len(answer.tracks) == 2
    assert all(len(track.values) <= MAX_INLINE_BYTES for track in answer.tracks)
    assert sum(track.frame_count for track in answer.tracks) == 7500
    short = await service.stub.PredictDescriptors(request("wren", window(), steps=3))
    assert answer.tracks[0].values.startswith(short.tracks[0].values)


async def test_the_best_step_answers_unless_another_is_named(service: Service) -> None:
    trained(service.models, "wren", 1)
    trained(service.models, "wren", 2)
    best = await service.stub.PredictDescriptors(request("wren", window()))
    first = await service.stub.PredictDescriptors(request("wren@1", window()))
    assert (best.version_id, first.version_id) == ("wren@2", "wren@1")
    assert best.tracks[0].values != first.tracks[0].values


async def test_a_window_shorter_than_the_predictor_needs_names_the_sound(service: Service) -> None:
    trained(service.models, "wren")
    error = await refused(service.stub.PredictDescriptors(request("wren", window(4))))
    assert isinstance(error, WindowTooLongError)
    assert error.culprit == "owl.wav"


@pytest.mark.parametrize(
    "changes",
    [{"sample_rate_hertz": 22050}, {"hop_length_samples": 512}],
    ids=lambda c: next(iter(c)),
)
async def test_settings_that_do_not_agree_name_both(
    service: Service, changes: dict[str, int]
) -> None:
    trained(service.models, "wren")
    odd = replace(window(), **changes)  # type: ignore[arg-type]
    error = await refused(service.stub.PredictDescriptors(request("wren", odd)))
    assert isinstance(error, SettingsMismatchError)
    [(field, theirs)] = changes.items()
    assert str(theirs) in error.message
    assert str(getattr(window(), field)) in error.message


async def test_features_that_do_not_fit_the_model_are_named(service: Service) -> None:
    trained(service.models, "wren")
    odd = window(names=(*NUMERIC[:-1], "centroid"))
    error = await refused(service.stub.PredictDescriptors(request("wren", odd)))
    assert isinstance(error, SettingsMismatchError)
    assert "mfcc38" in error.message
    assert "centroid" in error.message


async def test_deterministic_predictors_refuse_a_temperature(service: Service) -> None:
    trained(service.models, "wren")
    error = await refused(
        service.stub.PredictDescriptors(request("wren", window(), temperature=1.0))
    )
    assert isinstance(error, InvalidInputError)
    assert error.culprit == "temperature"
    assert "deterministic: only 0 works" in error.message


async def test_more_steps_than_allowed_are_refused(service: Service) -> None:
    trained(service.models, "wren")
    error = await refused(
        service.stub.PredictDescriptors(request("wren", window(), steps=MAX_STEPS + 1))
    )
    assert isinstance(error, InvalidInputError)
    assert str(MAX_STEPS) in error.message


async def test_windows_by_reference_are_refused_since_no_store_is_read(service: Service) -> None:
    trained(service.models, "wren")
    asked = request("wren", window())
    asked.window.object.CopyFrom(audio_pb2.ObjectRef(key="descriptors/a.json", sha256="0" * 64))
    error = await refused(service.stub.PredictDescriptors(asked))
    assert isinstance(error, InvalidInputError)
    assert "inline" in error.message


async def test_an_unknown_predictor_is_named_with_those_there_are(service: Service) -> None:
    trained(service.models, "wren")
    for call in (
        service.stub.PredictDescriptors(request("wrne", window())),
        service.stub.GetPredictor(pb.GetPredictorRequest(predictor_id="wrne")),
    ):
        error = await refused(call)
        assert isinstance(error, NotFoundError)
        assert "wrne" in error.message
        assert "there are: wren" in error.message


async def test_damaged_weights_are_told_by_their_key(service: Service) -> None:
    version = trained(service.models, "wren")
    service.store.put(version.weights_key, b"rust")
    error = await refused(service.stub.PredictDescriptors(request("wren", window())))
    assert isinstance(error, CorruptObjectError)
    assert error.culprit == version.weights_key


@pytest.mark.parametrize("deltas", ["predicted", "computed"])
async def test_a_model_that_answers_no_numbers_is_told_by_its_version(
    service: Service, deltas: Deltas
) -> None:
    trained(service.models, "wren", 3, deltas=deltas, weight=float("nan"))
    error = await refused(service.stub.PredictDescriptors(request("wren", window())))
    assert isinstance(error, ConfigurationError)
    assert error.culprit == "wren@3"
    assert "predictor 'wren@3' cannot be used: this LSTM answered values that are not" in str(error)


async def test_a_model_whose_config_cannot_be_is_not_the_callers_fault(service: Service) -> None:
    version = trained(service.models, "wren", architecture="TransformerModel")
    weights = service.models.read_weights(version)
    shape = version.config["shape"] | {"nhead": 7}
    config = version.config | {"shape": shape}
    service.models.save("predictor", "owl", 1, weights=weights, config=config, card="", best=True)
    error = await refused(service.stub.PredictDescriptors(request("owl", window())))
    assert isinstance(error, CorruptObjectError)
    assert error.culprit == "shape.nhead"


async def test_a_deadline_stops_the_work_and_frees_the_device(service: Service) -> None:
    trained(service.models, "wren", architecture="TransformerEncoderOnlyModel")
    late = service.stub.PredictDescriptors(request("wren", window(), steps=MAX_STEPS), timeout=0.3)
    assert isinstance(await refused(late), TimeExceededError)
    answer = await asyncio.wait_for(
        service.stub.PredictDescriptors(request("wren", window())), timeout=20
    )
    assert answer.tracks[0].frame_count == 7


async def test_a_predictor_is_described(service: Service) -> None:
    version = trained(service.models, "wren", 40, "TransformerModel")
    answer = await service.stub.GetPredictor(pb.GetPredictorRequest(predictor_id="wren"))
    assert answer.predictor == pb.Predictor(
        id="wren",
        version_id="wren@40",
        architecture="TransformerModel",
        window_frames=WINDOW,
        feature_names=NAMES,
        sample_rate_hertz=44100,
        hop_length_samples=1024,
        max_steps=MAX_STEPS,
        stochastic=False,
        weights_sha256=version.weights_sha256,
        step=40,
    )


async def test_a_predictor_that_was_judged_is_described_with_its_errors(service: Service) -> None:
    version = trained(service.models, "wren")
    errors = {"error_10": 0.5, "linear_autoregression_error_10": 0.75}
    more = {"error_10_standard_error": 0.1, "static_error_10": 0.4, "persistence_error_10": 1.0}
    service.models.describe(version, figures=errors | more, card="", pictures={})
    answer = await service.stub.GetPredictor(pb.GetPredictorRequest(predictor_id="wren"))
    assert dict(answer.predictor.figures) == errors


async def test_one_that_computes_deltas_is_described_by_the_columns_it_answers_in(
    service: Service,
) -> None:
    trained(service.models, "wren", deltas="computed")
    answer = await service.stub.GetPredictor(pb.GetPredictorRequest(predictor_id="wren"))
    assert tuple(answer.predictor.feature_names) == NUMERIC
    told = await service.stub.PredictDescriptors(request("wren", window()))
    assert tuple(told.tracks[0].feature_names) == NUMERIC


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
async def test_whether_a_predictor_draws_is_told_without_its_weights(
    service: Service, architecture: str
) -> None:
    version = trained(service.models, "wren", architecture=architecture)
    service.store.put(version.weights_key, b"rust")
    answer = await service.stub.GetPredictor(pb.GetPredictorRequest(predictor_id="wren"))
    assert answer.predictor.stochastic is (architecture == "ProbabilisticTransformer")


async def test_predictors_are_listed_by_id_page_by_page(service: Service) -> None:
    for name in ("d", "b", "e", "a", "c"):
        trained(service.models, name)
    found, token = [], ""
    while True:
        page = await service.stub.ListPredictors(
            pb.ListPredictorsRequest(page_size=2, page_token=token)
        )
        found.append([predictor.id for predictor in page.predictors])
        token = page.next_page_token
        if not token:
            break
    assert found == [["a", "b"], ["c", "d"], ["e"]]
    whole = await service.stub.ListPredictors(pb.ListPredictorsRequest())
    assert [predictor.id for predictor in whole.predictors] == ["a", "b", "c", "d", "e"]


async def test_a_damaged_predictor_leaves_the_others_in_the_list(service: Service) -> None:
    trained(service.models, "a")
    service.models.save("predictor", "b", 1, weights=b"", config={}, card="", best=True)
    trained(service.models, "c")
    answer = await service.stub.ListPredictors(pb.ListPredictorsRequest())
    assert [predictor.id for predictor in answer.predictors] == ["a", "c"]


@pytest.mark.parametrize("device", [f"cuda:{torch.cuda.device_count()}", "cuda:00"])
def test_a_device_that_is_not_there_is_refused_as_synth_does(device: str, tmp_path: Path) -> None:
    models = ModelStore(FolderStore(tmp_path))
    queue = DeviceQueue(1, metrics=Metrics().queue("predictor"))
    with pytest.raises(ConfigurationError) as raised:
        PredictorServicer(PredictorSettings(device=device), models, queue)
    assert raised.value.culprit == "DEMIURGE_PREDICTOR_DEVICE"
    with pytest.raises(ConfigurationError) as as_synth:
        open_device(device, "DEMIURGE_PREDICTOR_DEVICE", ConfigurationError)
    assert raised.value.message == as_synth.value.message
