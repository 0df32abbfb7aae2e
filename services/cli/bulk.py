"""Many sounds from the synth service: a bounded number of calls at once, each file kept at once."""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from services.cli.connection import Client
from services.cli.options import duration_message
from services.cli.progress import Reporter
from services.cli.shard import WHOLE, Shard
from services.cli.transfer import download
from services.errors import DemiurgeError, InvalidInputError

if TYPE_CHECKING:
    from demiurge.audio.v1.audio_pb2 import ObjectRef
    from demiurge.synth.v1.synth_service_pb2 import GenerateAudioFailure


@dataclass(frozen=True)
class Order:
    """Sounds of equal length, one a seed."""

    unagan: str
    melgan: str
    seconds: float
    database: str
    seeds: Sequence[int]

    def name(self, seed: int) -> str:
        """The file of that seed: what it holds, so that a name never asks for two contents."""
        return f"seed-{seed}-{self.seconds:g}s.wav"

    def key(self, seed: int) -> str:
        """Where it is stored."""
        return f"audio/{self.database}/{self.name(seed)}"


def generate_all(
    client: Client,
    order: Order,
    out: Path | None,
    progress: Reporter,
    *,
    batch: int,
    calls: int,
    shard: Shard = WHOLE,
) -> None:
    """Has the shard's sounds made, `batch` in a call, `calls` at once, and fetches them into `out`.

    Shards share out batches, so that each sound is made together with the same others as without
    shards. Where `out` is None the sounds stay in the store alone.

    A batch that is longer than the service makes at once is asked for in halves, and these again.
    What the services made before is not made again, and what is in `out` is not fetched again. A
    sound that fails, fails alone: once the others are there, the first failure is raised. A call
    that fails as a whole is raised at once, and ends those under way.
    """
    groups = shard.share([order.seeds[at : at + batch] for at in range(0, len(order.seeds), batch)])
    total = sum(map(len, groups))
    done, failures = 0, []
    progress.update("generating", 0, total)
    pool = ThreadPoolExecutor(calls, thread_name_prefix="generate")
    try:
        futures = [pool.submit(_group, client, order, group, out) for group in groups]
        for future in as_completed(futures):
            count, failed = future.result()
            failures += failed
            done += count
            progress.update("generating", done, total)
    finally:
        # Whoever is still at work ends when the channel is closed, which is next.
        pool.shutdown(wait=False, cancel_futures=True)
    if failures:
        first = failures[0]
        raise type(first)(
            f"{len(failures)} of {total} sounds were not made, the others are in "
            f"{out or order.database}; "
            f"the first: {first.message}",
            culprit=first.culprit,
        )


def _group(
    client: Client, order: Order, seeds: Sequence[int], out: Path | None
) -> tuple[int, list[DemiurgeError]]:
    """How many sounds were dealt with, and what went wrong with some."""
    failures = []
    for seed, outcome in zip(seeds, _made(client, order, seeds), strict=True):
        if isinstance(outcome, DemiurgeError):
            failures.append(outcome)
        elif out and not _is_there(outcome, out / order.name(seed)):
            download(client, outcome, out / order.name(seed))
    return len(seeds), failures


def _made(
    client: Client, order: Order, seeds: Sequence[int]
) -> "Iterator[ObjectRef | DemiurgeError]":
    from demiurge.synth.v1 import synth_service_pb2 as pb

    from services.runtime.status import remote_errors

    models = {"unagan_model_id": order.unagan, "melgan_model_id": order.melgan}
    duration = duration_message(order.seconds)
    if len(seeds) == 1:
        request = pb.GenerateAudioRequest(
            **models, duration=duration, seed=seeds[0], output_key=order.key(seeds[0])
        )
        yield client.synth.GenerateAudio(request).audio
        return
    items = [pb.GenerateAudioItem(seed=seed, output_key=order.key(seed)) for seed in seeds]
    together = pb.BatchGenerateAudioRequest(**models, duration=duration, items=items)
    try:
        with remote_errors():
            results = client.synth.BatchGenerateAudio(together).results
    except InvalidInputError as error:
        if error.culprit != "duration":
            raise
        # Together they are longer than the service makes at once, which it says before any work.
        half = len(seeds) // 2
        yield from _made(client, order, seeds[:half])
        yield from _made(client, order, seeds[half:])
        return
    for result in results:
        if result.WhichOneof("outcome") == "generated":
            yield result.generated.audio
        else:
            yield _error(result.failure)


def _error(failure: "GenerateAudioFailure") -> DemiurgeError:
    from google.rpc.error_details_pb2 import ErrorInfo
    from google.rpc.status_pb2 import Status

    from services.runtime.status import DOMAIN, error_from_status

    status = Status(code=failure.code, message=failure.message)
    status.details.add().Pack(ErrorInfo(reason=failure.reason, domain=DOMAIN))
    return error_from_status(status) or DemiurgeError(failure.message)


def _is_there(audio: "ObjectRef", path: Path) -> bool:
    if not path.is_file() or path.stat().st_size != audio.size_bytes:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == audio.sha256
