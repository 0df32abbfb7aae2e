"""The synth service: messages in, the models' sounds into the store, messages out."""

import asyncio
import hashlib
import io
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar

import grpc
import orjson
import torch
from demiurge.synth.v1 import synth_service_pb2 as pb
from demiurge.synth.v1 import synth_service_pb2_grpc as pb_grpc
from google.protobuf import duration_pb2
from google.protobuf.json_format import MessageToDict, MessageToJson, Parse, ParseError

from services.audio.reading import read_audio
from services.audio.writing import Encoding, write_audio
from services.errors import (
    ConfigurationError,
    CorruptObjectError,
    InvalidInputError,
    NotFoundError,
)
from services.runtime.device_queue import Checkpoint, DeviceQueue
from services.runtime.messages import ref_to_message
from services.runtime.model_store import ModelStore, ModelVersion
from services.runtime.object_store.port import ObjectStore, StoredObject
from services.synth.generation import ALGORITHM, FloatArray, Synthesizer, resynthesize
from services.synth.melgan import generator as melgan
from services.synth.settings import SynthSettings
from services.synth.unagan import generator as unagan

DEFAULT_PAGE_SIZE = 100
FAMILIES = {pb.MODEL_FAMILY_MELGAN: "melgan", pb.MODEL_FAMILY_UNAGAN: "unagan"}
_NANOS = 10**9

AudioRequest = pb.GenerateAudioRequest | pb.ResynthesizeAudioRequest
AudioResponseT = TypeVar("AudioResponseT", pb.GenerateAudioResponse, pb.ResynthesizeAudioResponse)
ModelT = TypeVar("ModelT")
Work = Callable[[Checkpoint], tuple[FloatArray, int]]
Context = grpc.aio.ServicerContext[Any, Any]


class SynthServicer(pb_grpc.SynthServiceServicer):
    """demiurge.synth.v1.SynthService over a store; models run in the device queue alone."""

    def __init__(
        self, settings: SynthSettings, store: ObjectStore, models: ModelStore, queue: DeviceQueue
    ) -> None:
        self._store = store
        self._max_seconds = settings.max_seconds
        self._models = models
        self._queue = queue
        self._device = _device(settings.device)
        self._loaded = LoadedModels(models, self._device, settings.loaded_models)

    async def warm_up(self) -> None:
        """Wakes the device, which on a GPU takes seconds; models are loaded when asked for."""
        await self._queue.run(lambda _: torch.zeros(1, device=self._device).cpu())

    async def GenerateAudio(
        self, request: pb.GenerateAudioRequest, context: Context
    ) -> pb.GenerateAudioResponse:
        """One new sound, from noise."""
        self._refuse_too_long(_seconds(request.duration), "duration")
        voice = await asyncio.to_thread(self._models.find, "unagan", request.unagan_model_id)
        vocoder = await asyncio.to_thread(self._models.find, "melgan", request.melgan_model_id)

        def generate(checkpoint: Checkpoint) -> tuple[FloatArray, int]:
            synthesizer = Synthesizer(
                self._loaded.unagan(voice),
                self._loaded.melgan(vocoder),
                unagan_id=voice.version_id,
                melgan_id=vocoder.version_id,
            )
            rate = synthesizer.sample_rate_hertz
            length = _sample_count(request.duration, rate)
            return synthesizer.generate(length, request.seed, checkpoint), rate

        return await self._once(request, (voice, vocoder), pb.GenerateAudioResponse, generate)

    async def ResynthesizeAudio(
        self, request: pb.ResynthesizeAudioRequest, context: Context
    ) -> pb.ResynthesizeAudioResponse:
        """The vocoder's copy of a sound."""
        vocoder = await asyncio.to_thread(self._models.find, "melgan", request.melgan_model_id)

        def copy(checkpoint: Checkpoint) -> tuple[FloatArray, int]:
            with self._store.open(request.audio.key, sha256=request.audio.sha256) as file:
                sound = read_audio(file, name=request.audio.key, checkpoint=checkpoint)
            seconds = len(sound.samples) / sound.sample_rate_hertz
            self._refuse_too_long(seconds, request.audio.key)
            generator = self._loaded.melgan(vocoder)
            samples = resynthesize(generator, sound.samples, sound.sample_rate_hertz, checkpoint)
            return samples, generator.settings.mel.sample_rate_hertz

        return await self._once(request, (vocoder,), pb.ResynthesizeAudioResponse, copy)

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
        versions: tuple[ModelVersion, ...],
        response: type[AudioResponseT],
        work: Work,
    ) -> AudioResponseT:
        """Answers from the marker of an equal request, or does the work and leaves the marker."""
        marker = f"markers/synth/{_digest(request, versions)}.json"
        answer = await asyncio.to_thread(self._marked, marker, response())
        if answer is None:
            samples, rate = await self._queue.run(work)
            stored = await asyncio.to_thread(self._stored, request.output_key, samples, rate)
            answer = response(
                audio=ref_to_message(stored), sample_rate_hertz=rate, sample_count=len(samples)
            )
            content = MessageToJson(answer, sort_keys=True).encode()
            await asyncio.to_thread(self._store.put, marker, content)
        return answer

    def _marked(self, marker: str, answer: AudioResponseT) -> AudioResponseT | None:
        try:
            Parse(self._store.read(marker), answer)
            found = self._store.stat(answer.audio.key)
        # A damaged marker tells nothing: what it stood for is done again, and it is replaced.
        except (NotFoundError, CorruptObjectError, ParseError, UnicodeDecodeError):
            return None
        return answer if found.sha256 == answer.audio.sha256 else None

    def _stored(self, key: str, samples: FloatArray, rate: int) -> StoredObject:
        content = io.BytesIO()
        write_audio(content, samples[:, None], rate, Encoding.WAV_PCM16)
        return self._store.put_new(key, content.getvalue())

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


class LoadedModels:
    """The models used last, ready on the device. For the device thread alone."""

    def __init__(self, models: ModelStore, device: torch.device, capacity: int) -> None:
        self._models = models
        self._device = device
        self._capacity = capacity
        self._loaded: OrderedDict[tuple[str, str, str], Any] = OrderedDict()

    def unagan(self, version: ModelVersion) -> unagan.Unagan:
        """The generator of that version, with its statistics."""
        return self._get(version, unagan.load_generator)

    def melgan(self, version: ModelVersion) -> melgan.Generator:
        """The vocoder of that version."""
        return self._get(version, lambda config, weights: melgan.load_generator(config, weights)[0])

    def _get(
        self, version: ModelVersion, load: Callable[[dict[str, Any], bytes], ModelT]
    ) -> ModelT:
        name = (version.family, version.version_id, version.weights_sha256)
        if name not in self._loaded:
            model: Any = load(version.config, self._models.read_weights(version))
            self._loaded[name] = model.to(self._device)
            while len(self._loaded) > self._capacity:
                self._loaded.popitem(last=False)
        self._loaded.move_to_end(name)
        loaded: ModelT = self._loaded[name]
        return loaded


def _device(name: str) -> torch.device:
    """The device of that setting; ConfigurationError if the machine has none."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigurationError(
            f"DEMIURGE_SYNTH_DEVICE is {name}, but this machine offers no CUDA device",
            culprit="DEMIURGE_SYNTH_DEVICE",
        )
    return torch.device(name)


def _seconds(duration: duration_pb2.Duration) -> float:
    return duration.seconds + duration.nanos / _NANOS


def _sample_count(duration: duration_pb2.Duration, rate: int) -> int:
    """The nearest whole number of samples."""
    nanoseconds = duration.seconds * _NANOS + duration.nanos
    return (nanoseconds * rate + _NANOS // 2) // _NANOS


def _digest(request: AudioRequest, versions: tuple[ModelVersion, ...]) -> str:
    """Names all that the answer depends on."""
    identity = {
        "method": request.DESCRIPTOR.full_name,
        "request": MessageToDict(request),
        "models": [(version.version_id, version.weights_sha256) for version in versions],
        "algorithm": ALGORITHM,
    }
    return hashlib.sha256(orjson.dumps(identity, option=orjson.OPT_SORT_KEYS)).hexdigest()


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
