"""The synth service: messages in, the models' sounds into the store, messages out."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, BinaryIO

import grpc
import numpy as np
import torch
from demiurge.synth.v1 import synth_service_pb2 as pb
from demiurge.synth.v1 import synth_service_pb2_grpc as pb_grpc
from google.protobuf import duration_pb2

from services.audio.reading import open_audio
from services.audio.resampling import resample_blocks, to_mono
from services.errors import ConfigurationError, DemiurgeError, InvalidInputError, NotFoundError
from services.learning.device import device_memory, open_device
from services.runtime.device_queue import Checkpoint, DeviceQueue
from services.runtime.metrics import DeviceMemory
from services.runtime.model_store import ModelStore, ModelVersion
from services.runtime.object_store.port import ObjectStore
from services.runtime.status import status_of
from services.synth.generation.bulk import Outcome, generate_each
from services.synth.generation.synthesizer import FloatArray, Synthesizer, copied
from services.synth.loaded import LoadedModels, StoredModel
from services.synth.metrics import SynthMetrics
from services.synth.records import Answers, AnswerT, AudioRequest, write_sound
from services.synth.settings import SynthSettings
from services.temporary import temporary_file

SERVICE = pb.DESCRIPTOR.services_by_name["SynthService"].full_name
DEFAULT_PAGE_SIZE = 100
FAMILIES = {pb.MODEL_FAMILY_MELGAN: "melgan", pb.MODEL_FAMILY_UNAGAN: "unagan"}
_NANOS = 10**9

# Writes a sound to the file; how many samples it has, and their rate.
Work = Callable[[BinaryIO, Checkpoint], tuple[int, int]]
Context = grpc.aio.ServicerContext[Any, Any]


class SynthServicer(pb_grpc.SynthServiceServicer):
    """demiurge.synth.v1.SynthService over a store; models run in the device queue alone."""

    def __init__(
        self,
        settings: SynthSettings,
        store: ObjectStore,
        models: ModelStore,
        queue: DeviceQueue,
        metrics: SynthMetrics,
    ) -> None:
        self._store = store
        self._metrics = metrics
        self._max_seconds = settings.max_seconds
        self._models = models
        self._queue = queue
        self._device = open_device(settings.device, "DEMIURGE_SYNTH_DEVICE", ConfigurationError)
        self._loaded = LoadedModels(
            self._device,
            settings.loaded_models,
            precision=settings.precision,
            graphs=settings.cuda_graphs,
        )
        self._answers = Answers(store, settings.precision)

    async def warm_up(self) -> None:
        """Wakes the device, which on a GPU takes seconds; models are loaded when asked for."""
        await self._queue.run(lambda _: torch.zeros(1, device=self._device).cpu())

    def device_memory(self) -> DeviceMemory:
        """What the device holds at this moment."""
        return device_memory(self._device)

    async def GenerateAudio(
        self, request: pb.GenerateAudioRequest, context: Context
    ) -> pb.GenerateAudioResponse:
        """One new sound, from noise."""
        self._refuse_too_long(_seconds(request.duration), "duration")
        versions = await asyncio.to_thread(self._pair, request)

        def generate(file: BinaryIO, checkpoint: Checkpoint) -> tuple[int, int]:
            synthesizer = self._synthesizer(*versions)
            rate = synthesizer.sample_rate_hertz
            count = _sample_count(request.duration, rate)
            write_sound(file, synthesizer.pieces(count, request.seed, checkpoint), count, rate)
            return count, rate

        return await self._once(request, versions, pb.GenerateAudioResponse(), generate)

    async def BatchGenerateAudio(
        self, request: pb.BatchGenerateAudioRequest, context: Context
    ) -> pb.BatchGenerateAudioResponse:
        """New sounds of equal length; each is stored as soon as it is finished."""
        self._metrics.batch_items.observe(len(request.items))
        self._refuse_too_long(_seconds(request.duration) * len(request.items), "duration")
        versions = await asyncio.to_thread(self._pair, request)
        ones = [
            pb.GenerateAudioRequest(
                unagan_model_id=request.unagan_model_id,
                melgan_model_id=request.melgan_model_id,
                duration=request.duration,
                seed=item.seed,
                output_key=item.output_key,
            )
            for item in request.items
        ]
        answers = await asyncio.to_thread(
            lambda: [self._answers.find(one, versions, pb.GenerateAudioResponse()) for one in ones]
        )
        missing = [one for one, answer in zip(ones, answers, strict=True) if answer is None]
        made = iter(
            await self._queue.run(partial(self._generate_all, missing, versions)) if missing else ()
        )
        results = [_result(next(made) if answer is None else answer) for answer in answers]
        return pb.BatchGenerateAudioResponse(results=results)

    def _generate_all(
        self,
        requests: Sequence[pb.GenerateAudioRequest],
        versions: Sequence[ModelVersion],
        checkpoint: Checkpoint,
    ) -> list[pb.GenerateAudioResponse | DemiurgeError]:
        synthesizer = self._synthesizer(*versions)
        rate = synthesizer.sample_rate_hertz
        count = _sample_count(requests[0].duration, rate)
        seeds = [one.seed for one in requests]
        kept: list[Future[pb.GenerateAudioResponse | DemiurgeError]] = []
        # Stored by a thread beside: the device goes on meanwhile. What is finished when the caller
        # leaves is stored still.
        with ThreadPoolExecutor(1, thread_name_prefix="synth-keeper") as keeper:
            outcomes = generate_each(synthesizer, count, seeds, checkpoint)
            for one, outcome in zip(requests, outcomes, strict=True):
                if not isinstance(outcome, DemiurgeError):
                    self._made("BatchGenerateAudio", len(outcome), rate)
                kept.append(keeper.submit(self._keep, one, versions, outcome, rate))
        return [future.result() for future in kept]

    def _keep(
        self,
        request: pb.GenerateAudioRequest,
        versions: Sequence[ModelVersion],
        outcome: Outcome,
        rate: int,
    ) -> pb.GenerateAudioResponse | DemiurgeError:
        if isinstance(outcome, DemiurgeError):
            return outcome
        try:
            with temporary_file(request.output_key) as file:
                write_sound(file, [outcome], len(outcome), rate)
                answer = pb.GenerateAudioResponse()
                return self._answers.keep(
                    request, versions, answer, file=file, count=len(outcome), rate=rate
                )
        except DemiurgeError as error:
            return error

    async def ResynthesizeAudio(
        self, request: pb.ResynthesizeAudioRequest, context: Context
    ) -> pb.ResynthesizeAudioResponse:
        """The vocoder's copy of a sound."""
        version = await asyncio.to_thread(self._models.find, "melgan", request.melgan_model_id)

        def copy(file: BinaryIO, checkpoint: Checkpoint) -> tuple[int, int]:
            vocoder = self._loaded.melgan(self._stored_model(version))
            rate = vocoder.settings.mel.sample_rate_hertz
            mono = self._read_mono(request, rate, checkpoint)
            write_sound(file, copied(vocoder, mono, checkpoint), len(mono), rate)
            return len(mono), rate

        return await self._once(request, (version,), pb.ResynthesizeAudioResponse(), copy)

    def _read_mono(
        self, request: pb.ResynthesizeAudioRequest, rate: int, checkpoint: Checkpoint
    ) -> FloatArray:
        key, blocks, count = request.audio.key, [], 0
        with (
            self._store.open(key, sha256=request.audio.sha256) as file,
            open_audio(file, name=key) as stream,
        ):
            monos = (to_mono(block) for block in stream.blocks())
            for block in resample_blocks(monos, stream.sample_rate_hertz, rate):
                checkpoint()
                blocks.append(block)
                count += len(block)
                self._refuse_too_long(count / rate, key)
        return np.concatenate(blocks)

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:
        """The model of that id: of the family asked for, or of whichever has it."""
        if request.family:
            family = FAMILIES[request.family]
            version = await asyncio.to_thread(self._models.find, family, request.model_id)
        else:
            version = await asyncio.to_thread(self._find, request.model_id)
        return pb.GetModelResponse(model=_model(version))

    async def ListModels(
        self, request: pb.ListModelsRequest, context: Context
    ) -> pb.ListModelsResponse:
        """A page of models; the token is the place of the last one of the page before."""
        versions = await asyncio.to_thread(self._after, request.family, request.page_token)
        page_size = request.page_size or DEFAULT_PAGE_SIZE
        page = versions[:page_size]
        return pb.ListModelsResponse(
            models=[_model(version) for version in page],
            next_page_token="/".join(_place(page[-1])) if len(versions) > page_size else "",
        )

    def _refuse_too_long(self, seconds: float, culprit: str) -> None:
        if seconds > self._max_seconds:
            raise InvalidInputError(
                f"{culprit}: {seconds:g} s, and this service makes at most {self._max_seconds:g} s "
                "at once (DEMIURGE_SYNTH_MAX_SECONDS): ask for several shorter sounds",
                culprit=culprit,
            )

    async def _once(
        self,
        request: AudioRequest,
        versions: Sequence[ModelVersion],
        empty: AnswerT,
        work: Work,
    ) -> AnswerT:
        """Answers as an equal request was, or does the work and keeps the answer."""
        found = await asyncio.to_thread(self._answers.find, request, versions, empty)
        if found is not None:
            return found
        with temporary_file(request.output_key) as file:
            count, rate = await self._queue.run(partial(work, file))
            self._made(request.DESCRIPTOR.name.removesuffix("Request"), count, rate)
            keep = partial(self._answers.keep, file=file, count=count, rate=rate)
            empty.Clear()
            return await asyncio.to_thread(keep, request, versions, empty)

    def _made(self, method: str, count: int, rate: int) -> None:
        self._metrics.sound_seconds.labels(f"{SERVICE}/{method}").inc(count / rate)

    def _pair(
        self, request: pb.GenerateAudioRequest | pb.BatchGenerateAudioRequest
    ) -> tuple[ModelVersion, ModelVersion]:
        return (
            self._models.find("unagan", request.unagan_model_id),
            self._models.find("melgan", request.melgan_model_id),
        )

    def _synthesizer(self, voice: ModelVersion, vocoder: ModelVersion) -> Synthesizer:
        return Synthesizer(
            self._loaded.unagan(self._stored_model(voice)),
            self._loaded.melgan(self._stored_model(vocoder)),
            unagan_id=voice.version_id,
            melgan_id=vocoder.version_id,
        )

    def _stored_model(self, version: ModelVersion) -> StoredModel:
        name = (version.family, version.version_id, version.weights_sha256)
        return StoredModel(name, version.config, lambda: self._models.read_weights(version))

    def _find(self, model_id: str) -> ModelVersion:
        try:
            return self._models.find("unagan", model_id)
        except NotFoundError as not_unagan:
            try:
                return self._models.find("melgan", model_id)
            except NotFoundError as not_melgan:
                raise NotFoundError(
                    f"{not_unagan.message}; {not_melgan.message}", culprit=model_id
                ) from None

    def _after(self, family: "pb.ModelFamily.ValueType", token: str) -> list[ModelVersion]:
        """The models of a family, or of both, whose place is after `token`."""
        families = [FAMILIES[family]] if family in FAMILIES else list(FAMILIES.values())
        last_id, _, last_family = token.partition("/")
        after = (last_id, last_family)
        versions = [version for name in families for version in self._models.list(name)]
        return sorted((version for version in versions if _place(version) > after), key=_place)


def _result(outcome: pb.GenerateAudioResponse | DemiurgeError) -> pb.GenerateAudioResult:
    if not isinstance(outcome, DemiurgeError):
        return pb.GenerateAudioResult(generated=outcome)
    status = status_of(outcome)
    failure = pb.GenerateAudioFailure(
        code=status.code, reason=outcome.reason, message=status.message
    )
    return pb.GenerateAudioResult(failure=failure)


def _seconds(duration: duration_pb2.Duration) -> float:
    return duration.seconds + duration.nanos / _NANOS


def _sample_count(duration: duration_pb2.Duration, rate: int) -> int:
    """The nearest whole number of samples."""
    nanoseconds = duration.seconds * _NANOS + duration.nanos
    return (nanoseconds * rate + _NANOS // 2) // _NANOS


def _place(version: ModelVersion) -> tuple[str, str]:
    """Where a model stands in lists; the family tells apart what two families call the same."""
    return version.id, version.family


def _model(version: ModelVersion) -> pb.Model:
    mel = version.config.get("mel", {})
    return pb.Model(
        id=version.id,
        version_id=version.version_id,
        family=next(number for number, name in FAMILIES.items() if name == version.family),
        variant=version.config.get("variant", ""),
        step=version.step,
        weights_sha256=version.weights_sha256,
        sample_rate_hertz=mel.get("sample_rate_hertz", 0),
        hop_length_samples=mel.get("hop_length", 0),
        mel_channels=mel.get("n_mels", 0),
        size_bytes=version.size_bytes,
        figures=version.figures,
    )
