"""The snapshot of a run: every input by content, so that databases may grow meanwhile."""

import asyncio
import hashlib

from demiurge.audio.v1.audio_pb2 import ObjectRef
from demiurge.gateway.v1.gateway_service_pb2 import RunSpec
from demiurge.gateway.v1.run_record_pb2 import Snapshot
from demiurge.synth.v1.synth_service_pb2 import GetModelRequest, Model, ModelFamily
from google.protobuf.message import Message

from services.errors import SettingsMismatchError
from services.gateway.audio_library import AudioLibrary
from services.gateway.peers import Peers
from services.gateway.predictors import described

# Raised when the same request over the same inputs should make another piece, whichever stage or
# service has changed: the markers of a run are found by its id.
ALGORITHM = 3


def digest(algorithm: int, *messages: Message) -> str:
    """Hexadecimal SHA-256 of an algorithm number and messages."""
    total = hashlib.sha256(algorithm.to_bytes(8, "little"))
    for message in messages:
        content = message.SerializeToString(deterministic=True)
        total.update(len(content).to_bytes(8, "little"))
        total.update(content)
    return total.hexdigest()


def run_id(spec: RunSpec, snapshot: Snapshot) -> str:
    """Id of the run that `spec` over these inputs is: the same again for the same again.

    The temperature is to be settled, see `predictors.settled`.
    """
    named = RunSpec()
    named.CopyFrom(spec)
    # So runs that were made while 0 and not set were one keep their ids.
    if not named.prediction.temperature:
        named.prediction.ClearField("temperature")
    return f"run-{digest(ALGORITHM, named, snapshot)[:16]}"


async def take_snapshot(spec: RunSpec, library: AudioLibrary, peers: Peers) -> Snapshot:
    """Resolves databases and models to content.

    Raises NotFoundError naming the database, file or model that is not there,
    SettingsMismatchError if the models of a pair do not go together, and what `described` raises.
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
    snapshot.predictor.CopyFrom(await described(spec, len(snapshot.prediction), peers))
    return snapshot


async def _prediction_files(spec: RunSpec, library: AudioLibrary) -> list[ObjectRef]:
    database, names = spec.prediction.database, list(spec.prediction.files)
    if not names:
        return await asyncio.to_thread(library.files, database)
    return await asyncio.to_thread(lambda: [library.file(database, name) for name in names])


async def _model(peers: Peers, model_id: str, family: ModelFamily.ValueType) -> Model:
    # Two families may share an id.
    request = GetModelRequest(model_id=model_id, family=family)
    return (await peers.ask(peers.synth.GetModel, request)).model


def _check_pair(unagan: Model, melgan: Model) -> None:
    for setting in ("sample_rate_hertz", "hop_length_samples", "mel_channels"):
        ours, theirs = getattr(unagan, setting), getattr(melgan, setting)
        if ours != theirs:
            raise SettingsMismatchError(
                f"models {unagan.id!r} and {melgan.id!r} do not go together: "
                f"{setting} is {ours} in the one and {theirs} in the other",
                culprit=setting,
            )
