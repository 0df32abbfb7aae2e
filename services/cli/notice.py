"""The notice that a process of all services leaves beside its index, so that others find it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from services.cli.files import write_whole
from services.errors import ConflictError
from services.runtime.settings import RuntimeSettings

NAME = "running.json"
PATIENCE_SECONDS = 1.0


@dataclass(frozen=True)
class Notice:
    """Where all services answer, over which store, and whether for longer than one command."""

    address: str
    store: str
    lasting: bool
    pid: int


@contextmanager
def posted(
    folder: Path, address: str, runtime: RuntimeSettings, *, lasting: bool
) -> Iterator[None]:
    """Tells other commands of this process's services, until the end of the block."""
    notice = Notice(address, place(runtime), lasting, os.getpid())
    write_whole(folder / NAME, orjson.dumps(asdict(notice)))
    try:
        yield
    finally:
        (folder / NAME).unlink(missing_ok=True)


def found(folder: Path, runtime: RuntimeSettings) -> Notice | None:
    """The notice of services that are ready; one that a killed process left counts as none.

    Raises ConflictError if they work over another store.
    """
    try:
        notice = Notice(**orjson.loads((folder / NAME).read_bytes()))
        os.kill(notice.pid, 0)
    except (OSError, ValueError, TypeError):
        return None
    if not _ready(notice.address, settings_for(notice, runtime)):
        return None
    if notice.store != place(runtime):
        raise ConflictError(
            f"DEMIURGE_STORE is {place(runtime)}, but the services running at {notice.address} "
            f"keep {notice.store}: stop them, or set DEMIURGE_HOME to a folder of its own",
            culprit="DEMIURGE_STORE",
        )
    return notice


def settings_for(notice: Notice, runtime: RuntimeSettings) -> RuntimeSettings:
    """How its services are called: only those of `up` have TLS, if it is set."""
    from services.runtime.embedding import embedded_settings

    return runtime if notice.lasting else embedded_settings(runtime)


def place(runtime: RuntimeSettings) -> str:
    """The store's location, the same however it is written."""
    if "://" in runtime.store:
        return runtime.store.rstrip("/")
    return str(Path(runtime.store).expanduser().absolute())


def _ready(address: str, runtime: RuntimeSettings) -> bool:
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    from services.runtime.channels import open_blocking_channel
    from services.runtime.health import READINESS

    with suppress(grpc.RpcError), open_blocking_channel(address, runtime) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(service=READINESS), timeout=PATIENCE_SECONDS
        )
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
    return False
