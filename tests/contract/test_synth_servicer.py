import asyncio
import io
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import soundfile
import torch
from demiurge.audio.v1 import audio_pb2
from demiurge.synth.v1 import synth_service_pb2 as pb
from demiurge.synth.v1 import synth_service_pb2_grpc as pb_grpc
from google.protobuf import duration_pb2
from safetensors.torch import save

from services.audio.reading import read_audio
from services.errors import ConfigurationError, InvalidInputError
from services.runtime.device_queue import DeviceQueue
from services.runtime.interceptors.errors import ErrorInterceptor
from services.runtime.messages import ref_to_message
from services.runtime.metrics import Metrics
from services.runtime.model_store import ModelStore
from services.runtime.object_store.folder import FolderStore
from services.synth.mel import MelSettings
from services.synth.melgan.generator import Generator as Vocoder
from services.synth.melgan.generator import MelGanSettings, save_generator
from services.synth.metrics import SynthMetrics
from services.synth.recurrence import BidirectionalGRU
from services.synth.servicer import SynthServicer
from services.synth.settings import SynthSettings
from services.synth.unagan.generator import UnaganSettings, build_generator

MEL = MelSettings(sample_rate_hertz=16_000, n_fft=256, hop_length=64, win_length=256, n_mels=10)


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path)


@pytest.fixture
def models(store: FolderStore) -> ModelStore:
    models = ModelStore(store)
    save_unagan(models, "singer")
    save_melgan(models, "voice")
    return models


def save_unagan(models: ModelStore, id_: str, step: int = 1, mel: MelSettings = MEL) -> None:
    settings = UnaganSettings(z_dim=4, z_scale_factors=(2, 2), middle_dim=8, num_groups=2, mel=mel)
    config = {**settings.to_config(), "mean": [-1.0] * mel.n_mels, "std": [1.0] * mel.n_mels}
    torch.manual_seed(step)
    weights = save(build_generator(settings).state_dict())
    models.save("unagan", id_, step, weights=weights, config=config, card="", best=True)


def save_melgan(models: ModelStore, id_: str, step: int = 1, mel: MelSettings = MEL) -> None:
    settings = MelGanSettings(variant="original", ngf=2, ratios=(8, 8), mel=mel)
    torch.manual_seed(step)
    weights = save_generator(Vocoder(settings))
    config = settings.to_config()
    models.save("melgan", id_, step, weights=weights, config=config, card="", best=True)


def service(
    store: FolderStore, metrics: Metrics | None = None, device: str = "cpu", **limits: Any
) -> SynthServicer:
    settings = SynthSettings(device=device, **limits)
    metrics = metrics or Metrics()
    queue = DeviceQueue(settings.queue_capacity, metrics=metrics.queue("synth"))
    counted = SynthMetrics(metrics.registry)
    return SynthServicer(settings, store, ModelStore(store), queue, counted)


@pytest.fixture
async def stub(
    store: FolderStore, models: ModelStore, metrics: Metrics
) -> AsyncIterator[pb_grpc.SynthServiceStub]:
    server = grpc.aio.server(interceptors=[ErrorInterceptor()])
    servicer = service(store, metrics)
    pb_grpc.add_SynthServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await servicer.warm_up()
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield pb_grpc.SynthServiceStub(channel)
    await server.stop(None)


def request(
    key: str = "audio/raw/0001.wav", seed: int = 7, nanos: int = 250_000_000, melgan: str = "voice"
) -> pb.GenerateAudioRequest:
    return pb.GenerateAudioRequest(
        unagan_model_id="singer",
        melgan_model_id=melgan,
        duration=duration_pb2.Duration(nanos=nanos),
        seed=seed,
        output_key=key,
    )


def samples_of(store: FolderStore, ref: audio_pb2.ObjectRef) -> np.ndarray:
    with store.open(ref.key, sha256=ref.sha256) as file:
        return read_audio(file, name=ref.key).samples


async def generated(stub: pb_grpc.SynthServiceStub, key: str) -> pb.GenerateAudioResponse:
    return await stub.GenerateAudio(request(key, seed=8))


async def refused(call: "grpc.aio.UnaryUnaryCall[object, object]") -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error.value


async def test_a_generated_sound_is_stored_and_lasts_exactly_its_duration(
    stub: pb_grpc.SynthServiceStub, store: FolderStore
) -> None:
    # 0.25003125 s are 4000.5 samples.
    response = await stub.GenerateAudio(request(nanos=250_031_250))

    samples = samples_of(store, response.audio)
    assert samples.shape == (4001, 1)
    assert response.sample_count == 4001
    assert response.sample_rate_hertz == 16_000
    assert response.audio.key == "audio/raw/0001.wav"
    assert response.audio.media_type == "audio/wav"
    assert samples.std() > 0


async def test_a_seed_gives_the_same_bytes_also_from_another_process_and_another_seed_others(
    stub: pb_grpc.SynthServiceStub, store: FolderStore
) -> None:
    first = await stub.GenerateAudio(request("audio/raw/a.wav"))
    # Without cache and markers, as in a process just started.
    for key in list(store.keys("markers/")):
        store.delete(key)
    server = service(store)
    again = await server.GenerateAudio(request("audio/raw/b.wav"), None)  # type: ignore[arg-type]
    other = await stub.GenerateAudio(request("audio/raw/c.wav", seed=2**64 - 1))

    assert again.audio.sha256 == first.audio.sha256
    assert other.audio.sha256 != first.audio.sha256


async def test_an_answered_request_is_answered_without_the_models_weights(
    stub: pb_grpc.SynthServiceStub, store: FolderStore, models: ModelStore
) -> None:
    first = await stub.GenerateAudio(request())
    for version in (models.find("unagan", "singer"), models.find("melgan", "voice")):
        store.delete(version.weights_key)

    again = await service(store).GenerateAudio(request(), None)  # type: ignore[arg-type]

    assert again == first


async def test_a_sound_that_was_deleted_is_made_again(
    stub: pb_grpc.SynthServiceStub, store: FolderStore
) -> None:
    first = await stub.GenerateAudio(request())
    store.delete(first.audio.key)

    again = await stub.GenerateAudio(request())

    assert again == first
    assert len(samples_of(store, again.audio)) == 4000


async def test_a_better_step_of_a_model_is_another_request(
    stub: pb_grpc.SynthServiceStub, models: ModelStore
) -> None:
    first = await stub.GenerateAudio(request("audio/raw/a.wav"))
    save_unagan(models, "singer", step=2)

    later = await stub.GenerateAudio(request("audio/raw/b.wav"))
    taken = await refused(stub.GenerateAudio(request("audio/raw/a.wav")))

    assert later.audio.sha256 != first.audio.sha256
    assert taken.code() == grpc.StatusCode.ALREADY_EXISTS
    assert "audio/raw/a.wav" in (taken.details() or "")


async def test_models_that_do_not_go_together_are_refused_and_nothing_is_written(
    stub: pb_grpc.SynthServiceStub, store: FolderStore, models: ModelStore
) -> None:
    save_melgan(models, "slow", mel=replace(MEL, sample_rate_hertz=8000))

    error = await refused(stub.GenerateAudio(request(melgan="slow")))

    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    for word in ("sample_rate_hertz", "singer@1", "slow@1"):
        assert word in (error.details() or "")
    assert not list(store.keys("audio/"))
    assert not list(store.keys("markers/"))


async def test_unknown_models_are_not_found_and_those_there_are_named(
    stub: pb_grpc.SynthServiceStub,
) -> None:
    for call in (
        stub.GenerateAudio(request(melgan="none")),
        stub.GetModel(pb.GetModelRequest(model_id="none")),
    ):
        error = await refused(call)
        assert error.code() == grpc.StatusCode.NOT_FOUND
        assert "none" in (error.details() or "")
        assert "voice" in (error.details() or "")


async def test_a_duration_below_a_sample_is_refused(stub: pb_grpc.SynthServiceStub) -> None:
    error = await refused(stub.GenerateAudio(request(nanos=1)))

    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "duration" in (error.details() or "")


async def test_the_vocoders_copy_is_at_its_own_rate(
    stub: pb_grpc.SynthServiceStub, store: FolderStore
) -> None:
    file = io.BytesIO()
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (3200, 2))
    soundfile.write(file, noise, 32_000, format="FLAC")
    ref = ref_to_message(store.put("audio/birds/wren.flac", file.getvalue()))
    copying = pb.ResynthesizeAudioRequest(
        melgan_model_id="voice", audio=ref, output_key="audio/copies/wren.wav"
    )

    response = await stub.ResynthesizeAudio(copying)

    assert (response.sample_rate_hertz, response.sample_count) == (16_000, 1600)
    assert samples_of(store, response.audio).shape == (1600, 1)
    assert await stub.ResynthesizeAudio(copying) == response


async def test_a_file_that_is_no_sound_is_refused_by_its_name(
    stub: pb_grpc.SynthServiceStub, store: FolderStore
) -> None:
    ref = ref_to_message(store.put("audio/birds/notes.wav", b"no sound at all"))

    error = await refused(
        stub.ResynthesizeAudio(
            pb.ResynthesizeAudioRequest(
                melgan_model_id="voice", audio=ref, output_key="audio/copies/notes.wav"
            )
        )
    )

    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "audio/birds/notes.wav" in (error.details() or "")


async def test_a_model_is_described_by_id_and_by_step(
    stub: pb_grpc.SynthServiceStub, models: ModelStore
) -> None:
    save_unagan(models, "singer", step=2)
    version = models.find("unagan", "singer@1")

    best = (await stub.GetModel(pb.GetModelRequest(model_id="singer"))).model
    first = (await stub.GetModel(pb.GetModelRequest(model_id="singer@1"))).model
    voice = (await stub.GetModel(pb.GetModelRequest(model_id="voice"))).model

    assert best.version_id == "singer@2"
    assert first == pb.Model(
        id="singer",
        version_id="singer@1",
        family=pb.MODEL_FAMILY_UNAGAN,
        variant="hierarchical",
        step=1,
        weights_sha256=version.weights_sha256,
        sample_rate_hertz=16_000,
        hop_length_samples=64,
        mel_channels=10,
        size_bytes=version.size_bytes,
    )
    assert (voice.family, voice.variant) == (pb.MODEL_FAMILY_MELGAN, "original")


async def test_of_two_families_with_one_id_the_one_asked_for_is_described(
    stub: pb_grpc.SynthServiceStub, models: ModelStore
) -> None:
    save_melgan(models, "singer")

    for family in (pb.MODEL_FAMILY_UNAGAN, pb.MODEL_FAMILY_MELGAN):
        request = pb.GetModelRequest(model_id="singer", family=family)
        assert (await stub.GetModel(request)).model.family == family

    other = pb.GetModelRequest(model_id="voice", family=pb.MODEL_FAMILY_UNAGAN)
    assert (await refused(stub.GetModel(other))).code() == grpc.StatusCode.NOT_FOUND


async def test_a_sound_that_would_take_too_much_memory_is_refused_by_the_settings_name(
    store: FolderStore, models: ModelStore
) -> None:
    server = service(store, max_seconds=0.25)
    await server.GenerateAudio(request(nanos=250_000_000), None)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="DEMIURGE_SYNTH_MAX_SECONDS"):
        await server.GenerateAudio(request("audio/raw/long.wav", nanos=250_000_001), None)  # type: ignore[arg-type]

    content = io.BytesIO()
    soundfile.write(content, np.zeros(4001), 16_000, format="WAV")
    copying = pb.ResynthesizeAudioRequest(
        melgan_model_id="voice",
        audio=ref_to_message(store.put("audio/birds/long.wav", content.getvalue())),
        output_key="audio/copies/long.wav",
    )
    with pytest.raises(InvalidInputError, match=r"birds/long\.wav.*DEMIURGE_SYNTH_MAX_SECONDS"):
        await server.ResynthesizeAudio(copying, None)  # type: ignore[arg-type]


async def test_pages_hold_every_model_once_in_the_order_of_ids(
    stub: pb_grpc.SynthServiceStub, models: ModelStore
) -> None:
    save_unagan(models, "amber")
    # One id in both families, and one that begins with another.
    save_melgan(models, "singer")
    save_melgan(models, "singer-2")

    listed, token = [], ""
    while True:
        page = await stub.ListModels(pb.ListModelsRequest(page_size=2, page_token=token))
        assert 1 <= len(page.models) <= 2
        listed += [(model.id, model.family) for model in page.models]
        token = page.next_page_token
        if not token:
            break

    assert listed == [
        ("amber", pb.MODEL_FAMILY_UNAGAN),
        ("singer", pb.MODEL_FAMILY_MELGAN),
        ("singer", pb.MODEL_FAMILY_UNAGAN),
        ("singer-2", pb.MODEL_FAMILY_MELGAN),
        ("voice", pb.MODEL_FAMILY_MELGAN),
    ]
    only = await stub.ListModels(pb.ListModelsRequest(family=pb.MODEL_FAMILY_MELGAN))
    assert [model.id for model in only.models] == ["singer", "singer-2", "voice"]


async def test_calls_at_once_get_their_own_sounds(
    stub: pb_grpc.SynthServiceStub, store: FolderStore
) -> None:
    requests = [request(f"audio/raw/{seed}.wav", seed) for seed in range(4)]

    together = await asyncio.gather(*(stub.GenerateAudio(one) for one in requests))

    assert len({response.audio.sha256 for response in together}) == 4
    for one, response in zip(requests, together, strict=True):
        assert response.audio.key == one.output_key
        store.delete(response.audio.key)
        alone = await stub.GenerateAudio(one)
        assert alone.audio.sha256 == response.audio.sha256


@pytest.mark.parametrize("seconds_to_wait", [None, 0.3])
async def test_whoever_leaves_in_the_middle_of_a_pass_frees_the_device_and_nothing_is_stored(
    stub: pb_grpc.SynthServiceStub,
    store: FolderStore,
    monkeypatch: pytest.MonkeyPatch,
    seconds_to_wait: float | None,
) -> None:
    entered, go_on, passes = threading.Event(), threading.Event(), []
    add_both_ways = BidirectionalGRU.add_both_ways

    def held(gru: BidirectionalGRU, x: torch.Tensor, *further: Any, **named: Any) -> None:
        passes.append(x.shape)
        entered.set()
        assert go_on.wait(20)
        add_both_ways(gru, x, *further, **named)

    monkeypatch.setattr(BidirectionalGRU, "add_both_ways", held)
    left = stub.GenerateAudio(request("audio/raw/left.wav"), timeout=seconds_to_wait)
    asking = asyncio.ensure_future(left.code())
    assert await asyncio.to_thread(entered.wait, 20)
    next_one = asyncio.ensure_future(generated(stub, "audio/raw/next.wav"))
    if seconds_to_wait is None:
        left.cancel()
    code = await asking
    await asyncio.sleep(0.2)  # for the server to hear of it
    assert len(passes) == 1

    go_on.set()

    assert code in {grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED}
    assert (await next_one).audio.key == "audio/raw/next.wav"
    # One recurrence of the one who left, and the three of the other.
    assert len(passes) == 4
    assert list(store.keys("audio/")) == ["audio/raw/next.wav"]
    assert len(list(store.keys("markers/"))) == 1


def test_a_device_beyond_the_machine_s_is_refused_by_the_settings_name(store: FolderStore) -> None:
    device = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(ConfigurationError, match=f"{device}: this machine") as raised:
        service(store, device=device)
    assert raised.value.culprit == "DEMIURGE_SYNTH_DEVICE"
