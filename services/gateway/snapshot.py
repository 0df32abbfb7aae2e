"""The snapshot of a run: every input by content, so that databases may grow meanwhile."""

import asyncio
import hashlib

from demiurge.audio.v1.audio_pb2 import ObjectRef
from demiurge.gateway.v1.gateway_service_pb2 import RunSpec
from demiurge.gateway.v1.run_record_pb2 import Snapshot
from demiurge.predictor.v1.predictor_service_pb2 import GetPredictorRequest, Predictor
from demiurge.synth.v1.synth_service_pb2 import GetModelRequest, Model, ModelFamily
from google.protobuf.message import Message

from services.errors import InvalidInputError, NotFoundError, SettingsMismatchError
from services.gateway.audio_library import AudioLibrary
from services.gateway.peers import Peers

# Raised when the same request over the same inputs should make another piece.
ALGORITHM = 1

# What zero means in ExtractionSettings.
PUBLISHED_SAMPLE_RATE_HERTZ = 44100
PUBLISHED_HOP_LENGTH_SAMPLES = 1024


def digest(algorithm: int, *messages: Message) -> str:
    """Hexadecimal SHA-256 of an algorithm number and messages."""
    total = hashlib.sha256(algorithm.to_bytes(8, "little"))
    for message in messages:
        content = message.SerializeToString(deterministic=True)
        total.update(len(content).to_bytes(8, "little"))
        total.update(content)
    return total.hexdigest()


def run_id(spec: RunSpec, snapshot: Snapshot) -> str:
    """Id of the run that `spec` over these inputs is: the same again for the same again."""
    return f"run-{digest(ALGORITHM, spec, snapshot)[:16]}"


async def take_snapshot(spec: RunSpec, library: AudioLibrary, peers: Peers) -> Snapshot:
    """Resolves databases and models to content.

    Raises NotFoundError naming the database, file or model that is not there, and
    SettingsMismatchError if the models of a pair do not go together.
    """
    snapshot = Snapshot()
    if spec.HasField("generation"):
        generation = spec.generation
        unagan = await _model(peers, generation.unagan_model_id, ModelFamily.MODEL_FAMILY_UNAGAN)
        melgan = await _model(peers, generation.melgan_model_id, ModelFamily.MODEL_FAMILY_MELGAN)
        _check_pair(unagan, melgan)
        snapshot.unagan.CopyFrom(unagan)
        snapshot.melgan.CopyFrom(melgan)
    else:
        snapshot.material.extend(await asyncio.to_thread(library.files, spec.database))
    snapshot.prediction.extend(await _prediction_files(spec, library))
    snapshot.predictor.CopyFrom(await _predictor(spec, peers))
    return snapshot


async def _prediction_files(spec: RunSpec, library: AudioLibrary) -> list[ObjectRef]:
    files = await asyncio.to_thread(library.files, spec.prediction.database)
    if not spec.prediction.files:
        return files
    by_name = {file.key.rpartition("/")[2]: file for file in files}
    missing = [name for name in spec.prediction.files if name not in by_name]
    if missing:
        raise NotFoundError(
            f"database {spec.prediction.database!r} has no file {missing[0]!r}",
            culprit=missing[0],
        )
    return [by_name[name] for name in spec.prediction.files]


async def _model(peers: Peers, model_id: str, family: ModelFamily.ValueType) -> Model:
    response = await peers.call(peers.synth.GetModel, GetModelRequest(model_id=model_id))
    if response.model.family != family:
        raise InvalidInputError(
            f"model {model_id!r} is a {_family(response.model.family)}, not a {_family(family)}",
            culprit=model_id,
        )
    return response.model


def _family(family: ModelFamily.ValueType) -> str:
    return ModelFamily.Name(family).removeprefix("MODEL_FAMILY_")


def _check_pair(unagan: Model, melgan: Model) -> None:
    for setting in ("sample_rate_hertz", "hop_length_samples", "mel_channels"):
        ours, theirs = getattr(unagan, setting), getattr(melgan, setting)
        if ours != theirs:
            raise SettingsMismatchError(
                f"models {unagan.id!r} and {melgan.id!r} do not go together: "
                f"{setting} is {ours} in the one and {theirs} in the other",
                culprit=setting,
            )


async def _predictor(spec: RunSpec, peers: Peers) -> Predictor:
    request = GetPredictorRequest(predictor_id=spec.prediction.predictor_id)
    predictor = (await peers.call(peers.predictor.GetPredictor, request)).predictor
    settings = (
        ("sample_rate_hertz", spec.extraction.sample_rate_hertz or PUBLISHED_SAMPLE_RATE_HERTZ),
        ("hop_length_samples", spec.extraction.hop_length_samples or PUBLISHED_HOP_LENGTH_SAMPLES),
    )
    for setting, wanted in settings:
        trained = getattr(predictor, setting)
        if trained != wanted:
            raise SettingsMismatchError(
                f"predictor {predictor.id!r} was trained with {setting} {trained}, "
                f"the run extracts with {wanted}",
                culprit=setting,
            )
    return predictor
