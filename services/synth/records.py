"""What the synth service keeps in the object store: sounds, and markers of what was answered."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import BinaryIO, TypeVar

import numpy as np
import orjson
from demiurge.synth.v1 import synth_service_pb2 as pb
from google.protobuf.json_format import MessageToDict, MessageToJson, Parse, ParseError

from services.audio.reading import read_audio
from services.audio.writing import write_wav
from services.errors import ConflictError, CorruptObjectError, NotFoundError, UnreadableAudioError
from services.runtime.messages import ref_to_message
from services.runtime.model_store import ModelVersion
from services.runtime.object_store.port import File, ObjectStore, StoredObject
from services.synth.generation.synthesizer import ALGORITHM, FloatArray
from services.temporary import temporary_room

# A sound made in other company differs in last bits, so that one of 16 may round to its neighbour.
ROUNDING = 1.5 / 2**15

AudioRequest = pb.GenerateAudioRequest | pb.ResynthesizeAudioRequest
AnswerT = TypeVar("AnswerT", pb.GenerateAudioResponse, pb.ResynthesizeAudioResponse)


def write_sound(file: BinaryIO, pieces: Iterable[FloatArray], count: int, rate: int) -> None:
    """Writes a mono sound of `count` samples as it comes; a full disk raises StorageFullError."""
    with temporary_room():
        write_wav(file, (piece[:, None] for piece in pieces), (count, 1), rate)
        file.flush()


class Answers:
    """What was answered before, found again by request and models."""

    def __init__(self, store: ObjectStore, precision: str) -> None:
        self._store = store
        self._precision = precision

    def find(
        self, request: AudioRequest, versions: Sequence[ModelVersion], empty: AnswerT
    ) -> AnswerT | None:
        """The answer of an equal request, in `empty`, if its sound is still there."""
        try:
            Parse(self._store.read(self._marker(request, versions)), empty)
            found = self._store.stat(empty.audio.key)
        # A damaged marker tells nothing: what it stood for is done again, and it is replaced.
        except (NotFoundError, CorruptObjectError, ParseError, UnicodeDecodeError):
            return None
        return empty if found.sha256 == empty.audio.sha256 else None

    def keep(
        self,
        request: AudioRequest,
        versions: Sequence[ModelVersion],
        empty: AnswerT,
        *,
        file: File,
        count: int,
        rate: int,
    ) -> AnswerT:
        """Stores the sound in `file`, then the marker; the answer, in `empty`.

        Raises ConflictError if another sound has its name.
        """
        try:
            stored = self._store.put_new(request.output_key, file)
        except ConflictError:
            stored = self._store.stat(request.output_key)
            if not self._is_alike(stored, file):
                raise
        empty.audio.CopyFrom(ref_to_message(stored))
        empty.sample_rate_hertz, empty.sample_count = rate, count
        content = MessageToJson(empty, sort_keys=True).encode()
        self._store.put(self._marker(request, versions), content)
        return empty

    def _is_alike(self, stored: StoredObject, file: File) -> bool:
        """Whether the stored sound is this one but for last bits.

        So is what was left by a call that was killed before it left the marker.
        """
        ours = read_audio(file, name=stored.key)
        try:
            with self._store.open(stored.key, sha256=stored.sha256) as theirs:
                there = read_audio(theirs, name=stored.key)
        except (CorruptObjectError, UnreadableAudioError):
            return False
        if there.sample_rate_hertz != ours.sample_rate_hertz:
            return False
        if there.samples.shape != ours.samples.shape:
            return False
        return bool(np.abs(there.samples - ours.samples).max() < ROUNDING)

    def _marker(self, request: AudioRequest, versions: Sequence[ModelVersion]) -> str:
        """The key that names all that the answer depends on."""
        identity = {
            "method": request.DESCRIPTOR.full_name,
            "request": MessageToDict(request),
            "models": [(version.version_id, version.weights_sha256) for version in versions],
            "algorithm": ALGORITHM,
            "precision": self._precision,
        }
        content = orjson.dumps(identity, option=orjson.OPT_SORT_KEYS)
        return f"markers/synth/{hashlib.sha256(content).hexdigest()}.json"
