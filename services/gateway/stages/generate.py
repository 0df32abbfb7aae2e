"""Stage 1: the raw generated audio database, one GenerateAudio a file; or the database given."""

import hashlib

from demiurge.audio.v1.audio_pb2 import ObjectRef
from demiurge.gateway.v1.run_record_pb2 import Material, Snapshot
from demiurge.synth.v1.synth_service_pb2 import GenerateAudioRequest

from services.gateway.context import Advance, RunContext
from services.gateway.fan_out import fan_out
from services.gateway.snapshot import digest

# Raised when the same models and seed should sing other files, whatever changed in synth: they get
# a database of their own, for no file there is ever replaced by another.
ALGORITHM = 3


def item_seed(seed: int, *path: str | int) -> int:
    """A seed of its own for each item, 64 bits, from the run's seed and the item's place in it."""
    label = "/".join(map(str, (seed, *path)))
    return int.from_bytes(hashlib.sha256(label.encode()).digest()[:8], "little")


def items(context: RunContext) -> int:
    """Sounds."""
    return len(context.output(Material).audio)


async def run(context: RunContext, advance: Advance) -> Material:
    """Generates what is asked for, or passes the snapshot on."""
    spec, snapshot = context.spec, context.snapshot
    if not spec.HasField("generation"):
        advance(len(snapshot.material), len(snapshot.material))
        return Material(audio=snapshot.material, database=spec.database)
    generation, peers = spec.generation, context.peers
    models = Snapshot(unagan=snapshot.unagan, melgan=snapshot.melgan)
    # The file count is no part of the name: a larger run finds the files of a smaller one there.
    name = digest(ALGORITHM, models, generation.duration)[:12]
    database = f"generated-{name}-{spec.seed}"

    async def sing(index: int) -> ObjectRef:
        request = GenerateAudioRequest(
            unagan_model_id=snapshot.unagan.version_id,
            melgan_model_id=snapshot.melgan.version_id,
            duration=generation.duration,
            seed=item_seed(spec.seed, "generate", index),
            output_key=f"audio/{database}/{index + 1:06d}.wav",
        )
        return (await peers.call(peers.synth.GenerateAudio, request)).audio

    audio = await fan_out(
        range(generation.file_count),
        sing,
        concurrency=context.concurrency,
        advance=advance,
    )
    return Material(audio=audio, database=database)
