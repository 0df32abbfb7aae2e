"""`demiurge doctor`: what is missing on this machine, and how to mend it."""

import importlib.util
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.cli.finding import Finding

if TYPE_CHECKING:
    from services.runtime.settings import RuntimeSettings

app = typer.Typer(add_completion=False, rich_markup_mode=None)

GIBIBYTE = 1024**3
LEAST_FREE_BYTES = 2 * GIBIBYTE
# From the checkout: "demiurge" on the package index is a stranger's.
PIP = "pip install -c constraints.txt -e"
NEEDS = {
    "synth": ("torch", "librosa", "soundfile", "soxr", "safetensors"),
    "descriptor": ("librosa", "scipy", "soundfile", "soxr"),
    "predictor": ("torch", "safetensors"),
    "query": ("qdrant_edge", "qdrant_client"),
    "playback": ("soundfile", "soxr", "matplotlib"),
    "gateway": (),
    "train": ("wandb", "yaml"),
}


@app.command()
def doctor(
    deep: Annotated[
        bool,
        typer.Option(
            "--deep",
            help="Read every object of the store and compare every collection, point by point, "
            "with what was indexed. Takes as long as reading the store does.",
        ),
    ] = False,
    mend: Annotated[
        bool,
        typer.Option(
            "--mend",
            help="With --deep: rebuild collections, and move objects that are damaged to corrupt/ "
            "in the store, so that they can be made again.",
        ),
    ] = False,
) -> None:
    """Say what is missing here, and how to mend it.

    The exit code is 1 if anything is.
    """
    if mend and not deep:
        raise typer.BadParameter("--mend goes with --deep", param_hint="--mend")
    if deep:
        from services.cli.deep import look_deep

        findings = look_deep(mend=mend)
    else:
        findings = [finding for look in LOOKS for finding in look()]
    for finding in findings:
        finding.tell()
    if any(finding.mend for finding in findings):
        raise typer.Exit(1)


def _python() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    mend = "" if sys.version_info >= (3, 11) else "install Python 3.11 or newer"
    yield Finding("python", version, mend)


def _packages() -> Iterator[Finding]:
    for extra, modules in NEEDS.items():
        missing = [name for name in modules if importlib.util.find_spec(name) is None]
        yield Finding(
            extra,
            f"not installed: {', '.join(missing)}" if missing else "installed",
            f"make install, or in the checkout: {PIP} '.[{extra}]'" if missing else "",
        )


def _device() -> Iterator[Finding]:
    if importlib.util.find_spec("torch") is None:
        return
    import torch

    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    yield Finding("device", name or "CPU: everything works, training takes longer")


def _settings() -> Iterator[Finding]:
    from services.errors import ConfigurationError, ConflictError
    from services.runtime.settings import RuntimeSettings, load

    try:
        runtime = load(RuntimeSettings)
    except ConfigurationError as error:
        yield Finding("settings", error.message, f"mend or unset {error.culprit}")
        return
    yield Finding("settings", "readable")
    yield _store(runtime)
    from services.query.settings import QuerySettings

    try:
        query = load(QuerySettings)
    except ConfigurationError as error:
        yield Finding("settings", error.message, f"mend or unset {error.culprit}")
        return
    yield _folder("index", query.folder)
    from services.cli.notice import found

    try:
        running = found(query.folder, runtime)
    except ConflictError as error:
        yield Finding("demiurge up", error.message, "mend DEMIURGE_HOME or DEMIURGE_STORE")
        return
    state = f"running at {running.address}" if running else "not running, not needed"
    yield Finding("demiurge up", state)


def _store(runtime: "RuntimeSettings") -> Finding:
    from services.errors import ConfigurationError, DemiurgeError
    from services.runtime.object_store.opening import folder_of, open_store

    try:
        folder = folder_of(runtime)
        if folder:
            return _folder("store", folder)
        open_store(runtime)
    except ConfigurationError as error:
        return Finding("store", error.message, f"mend or unset {error.culprit}")
    except DemiurgeError as error:
        return Finding("store", error.message, "mend the DEMIURGE_S3_ variables, or the server")
    return Finding("store", f"{runtime.store}, reachable")


def _folder(subject: str, folder: Path) -> Finding:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        free = shutil.disk_usage(existing).free
        probe = existing / ".demiurge-doctor"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        return Finding(subject, f"{folder}: {error.strerror}", "choose a folder you may write to")
    found = f"{folder}, {free / GIBIBYTE:.0f} GiB free"
    return Finding(subject, found, "make room" if free < LEAST_FREE_BYTES else "")


def _stored_models() -> Iterator[Finding]:
    from services.errors import DemiurgeError
    from services.runtime.model_store import FAMILIES, ModelStore
    from services.runtime.object_store.opening import open_store
    from services.runtime.settings import RuntimeSettings, load

    try:
        models = ModelStore(open_store(load(RuntimeSettings)))
        counts = [f"{sum(1 for _ in models.list(family))} {family}" for family in FAMILIES]
    except DemiurgeError as error:
        yield Finding("models", error.message, "see the lines above")
        return
    yield Finding("models", ", ".join(counts))


LOOKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    _python,
    _packages,
    _device,
    _settings,
    _stored_models,
)
