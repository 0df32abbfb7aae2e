"""Models of W&B runs, fetched into a folder that looks as their training left it.

W&B's own client asks and fetches; which server, and with which key, is its affair: WANDB_BASE_URL,
WANDB_API_KEY, ~/.netrc. Nothing is fetched but files that belong to a model, up to a size.
"""

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import orjson

from services.cli.published import choose
from services.cli.training.tracking import ARTIFACT_TYPE, CARD, CONFIG, WEIGHTS
from services.errors import (
    DemiurgeError,
    InvalidInputError,
    NotFoundError,
    UnauthenticatedError,
    UnavailableError,
)
from services.temporary import temporary_room

SCHEME = "wandb:"
GIBIBYTE = 1024**3
MOST_BYTES = 2 * GIBIBYTE
SECONDS_TO_ANSWER = 20
SECONDS_OF_SILENCE = 60.0
"""After this, a transfer that brings nothing is given up."""


class RunPath(NamedTuple):
    """Names a run of W&B."""

    entity: str
    project: str
    run_id: str

    def __str__(self) -> str:
        return SCHEME + "/".join(self)


def run_path(source: str) -> RunPath | None:
    """The run that "wandb:entity/project/run_id" names; None for what names no W&B run.

    The path as a browser shows it, entity/project/runs/run_id, is the same. Raises
    InvalidInputError for any other form.
    """
    if not source.startswith(SCHEME):
        return None
    parts = source.removeprefix(SCHEME).strip("/").split("/")
    if len(parts) == 4 and parts[2] == "runs":
        del parts[2]
    if len(parts) != 3 or not all(parts):
        raise InvalidInputError(
            f"{source} names no run: give entity, project and run id, as in "
            "wandb:our-lab/demiurge/k3x9q1ab",
            culprit=source,
        )
    return RunPath(*parts)


@contextmanager
def fetched(path: RunPath, checkpoint: str = "") -> Iterator[Path]:
    """A folder with the model of a run, gone afterwards: a store's layout, or a published one.

    `checkpoint` names the file to take where a published run holds several. Raises NotFoundError
    for a run that is not there, UnauthenticatedError for a key that is refused, UnavailableError if
    W&B does not answer, InvalidInputError for a run that holds no model or too large a one, and
    StorageFullError where there is no room.
    """
    with (
        temporary_room(str(path)),
        # What was given up may still be written to while it is removed.
        tempfile.TemporaryDirectory(prefix="demiurge-", ignore_cleanup_errors=True) as temporary,
        _quiet_client(temporary),
    ):
        # In a folder of its own: importers look a folder above, too.
        folder = Path(temporary) / "above" / "run"
        folder.mkdir(parents=True)
        try:
            _fetch(path, folder, checkpoint)
        except (DemiurgeError, OSError):
            raise
        except Exception as error:
            raise _told(error, path) from error
        yield folder


def _fetch(path: RunPath, folder: Path, checkpoint: str) -> None:
    import wandb

    run = wandb.Api(timeout=SECONDS_TO_ANSWER).run("/".join(path))
    if not checkpoint and _fetch_own(run, path, folder):
        return
    # Of two files of one name the one that lies less deep.
    files = sorted(run.files(per_page=1000), key=lambda file: -str(file.name).count("/"))
    by_name = {
        PurePosixPath(file.name).name: file for file in files if ".." not in file.name.split("/")
    }
    layout, chosen = choose(by_name, checkpoint, str(path))
    wanted = {name: by_name[name] for name in (chosen, *layout.beside) if name in by_name}
    sizes = {name: int(file.size) for name, file in wanted.items()}
    for name, file in wanted.items():
        source = folder.parent / file.name

        def download(file: Any = file) -> None:
            file.download(root=str(folder.parent), replace=True).close()

        _transfer(path, sizes, download, folder)
        if source != folder / name:
            source.replace(folder / name)
    _check_sizes(path, sizes, folder)
    if layout.arguments not in wanted:
        # JSON is YAML, too.
        (folder / layout.arguments).write_bytes(orjson.dumps(_plain(run.config)))


def _fetch_own(run: Any, path: RunPath, folder: Path) -> bool:
    """Fetches the last model that a training of ours has published; whether there is one."""
    own = [
        artifact
        for artifact in run.logged_artifacts()
        if artifact.type == ARTIFACT_TYPE and {"family", "step"} <= set(artifact.metadata)
    ]
    if not own:
        return False
    artifact = max(own, key=lambda artifact: int(artifact.version.removeprefix("v")))
    entries = artifact.manifest.entries
    if not {WEIGHTS, CONFIG} <= set(entries) <= {WEIGHTS, CONFIG, CARD}:
        raise InvalidInputError(
            f"{path}: its artifact {artifact.name} should hold {WEIGHTS}, {CONFIG} and {CARD}, not "
            f"{', '.join(sorted(entries))}",
            culprit=artifact.name,
        )
    if any(entry.ref for entry in entries.values()):
        raise InvalidInputError(
            f"{path}: its artifact {artifact.name} refers to files elsewhere; they are not fetched",
            culprit=artifact.name,
        )
    step = int(artifact.metadata["step"])
    version = folder / str(step)
    version.mkdir()
    sizes = {name: int(entry.size or 0) for name, entry in entries.items()}
    _transfer(path, sizes, lambda: artifact.download(root=str(version), skip_cache=True), version)
    _check_sizes(path, sizes, version)
    (folder / "best.json").write_bytes(orjson.dumps({"step": step}))
    return True


def _transfer(
    path: RunPath, sizes: Mapping[str, int], work: Callable[[], object], folder: Path
) -> None:
    """Does `work`, which writes below the folder's parent; given up when too large or too slow.

    W&B's client knows neither limit, and tries again for hours.
    """
    if sum(sizes.values()) > MOST_BYTES:
        largest = max(sizes, key=lambda name: sizes[name])
        raise InvalidInputError(
            f"{path}: {largest} has {sizes[largest] / GIBIBYTE:.1f} GiB, and a model at most "
            f"{MOST_BYTES / GIBIBYTE:.0f} GiB",
            culprit=largest,
        )
    failed: list[BaseException] = []

    def working() -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=working, daemon=True)
    thread.start()
    size, since = 0, time.monotonic()
    while thread.is_alive():
        thread.join(0.1)
        there = sum(file.stat().st_size for file in folder.parent.rglob("*") if file.is_file())
        if there > MOST_BYTES:
            raise InvalidInputError(
                f"{path}: sends more than the {sum(sizes.values())} bytes that it told of",
                culprit=str(path),
            )
        if there != size:
            size, since = there, time.monotonic()
        elif time.monotonic() - since > SECONDS_OF_SILENCE:
            raise _unavailable(path, f"nothing came for {SECONDS_OF_SILENCE:.0f} s")
    if failed:
        raise failed[0]


def _check_sizes(path: RunPath, sizes: Mapping[str, int], folder: Path) -> None:
    for name, size in sizes.items():
        there = (folder / name).stat().st_size
        if there != size:
            raise UnavailableError(
                f"{path}: {there} bytes of {name} came, not {size}: import it again", culprit=name
            )


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a run was given, without what W&B adds."""
    return {name: value for name, value in config.items() if not name.startswith("_")}


@contextmanager
def _quiet_client(temporary: str) -> Iterator[None]:
    """Has W&B's client say nothing, and leave nothing behind but in a temporary folder."""
    ours = {
        "WANDB_SILENT": "true",
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_DIR": temporary,
        "WANDB_CACHE_DIR": temporary,
        "WANDB_DATA_DIR": temporary,
    }
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _told(error: Exception, path: RunPath) -> DemiurgeError:
    """What W&B's client says, with what to do."""
    if isinstance(error, ImportError):
        return NotFoundError(
            f"{path}: the package wandb is not installed: pip install wandb", culprit="wandb"
        )
    import wandb

    causes = list(_causes(error))
    status = next((code for each in causes if (code := _status(each))), 0)
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    if any(type(each).__name__ == "RunNotFoundError" for each in causes) or status == 404:
        return NotFoundError(
            f"{path}: W&B has no such run or file, or does not show it to this key: check entity, "
            "project and run id, and WANDB_API_KEY",
            culprit=str(path),
        )
    # Such an error is also that of a server which says nothing about the key.
    asked = any(type(each).__name__ == "WandbApiFailedError" for each in causes)
    refused = isinstance(error, wandb.errors.AuthenticationError) and not asked
    if status in {401, 403} or refused or isinstance(error, wandb.errors.UsageError):
        return UnauthenticatedError(
            f"{path}: W&B does not let this key in ({reason}): set WANDB_API_KEY, or `wandb login`",
            culprit="WANDB_API_KEY",
        )
    return _unavailable(path, reason)


def _unavailable(path: RunPath, reason: str) -> UnavailableError:
    server = os.environ.get("WANDB_BASE_URL") or "its public address"
    return UnavailableError(
        f"{path}: W&B at {server} does not answer ({reason}): check WANDB_BASE_URL and the "
        "network, and import again",
        culprit="WANDB_BASE_URL",
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _status(error: BaseException) -> int:
    """The HTTP status that W&B's client was answered with, 0 for none."""
    response = getattr(error, "response", None)
    return int(getattr(response, "http_status", 0) or getattr(response, "status_code", 0) or 0)
