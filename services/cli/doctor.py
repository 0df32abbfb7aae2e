"""`demiurge doctor`: what is missing on this machine, and how to mend it."""

import importlib.util
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
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
    "train": ("wandb", "yaml", "matplotlib"),
}
# Whose models are trained here, unless both are elsewhere.
TRAINABLE = ("synth", "predictor")
# The checkout, unless installed without one, as in an image.
ROOT = Path(__file__).parents[2]


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
    from services.errors import ConfigurationError
    from services.runtime.settings import RuntimeSettings, load

    runtime = None
    with suppress(ConfigurationError):  # told below
        runtime = load(RuntimeSettings)
    for extra, modules in NEEDS.items():
        if runtime and all(map(runtime.address_of, TRAINABLE if extra == "train" else (extra,))):
            continue
        missing = [name for name in modules if importlib.util.find_spec(name) is None]
        if missing:
            yield Finding(extra, f"not installed: {', '.join(missing)}", _packages_mend(extra))
        else:
            yield Finding(extra, "installed")


def _packages_mend(extra: str) -> str:
    if (ROOT / "pyproject.toml").exists():
        return f"make install, or in the checkout: {PIP} '.[{extra}]'"
    if extra == "train":
        return "images of synth and predictor have it; or install from a checkout"
    return (
        f"the image of {extra} has it: set DEMIURGE_{extra.upper()}_ADDRESS to where it runs; "
        "or install from a checkout"
    )


def _device() -> Iterator[Finding]:
    if importlib.util.find_spec("torch") is None:
        return
    import torch

    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    yield Finding("device", name or "CPU: everything works, training takes longer")


def _settings() -> Iterator[Finding]:
    from services.errors import ConfigurationError, ConflictError
    from services.runtime.settings import NOUNS, RuntimeSettings, load

    try:
        runtime = load(RuntimeSettings)
    except ConfigurationError as error:
        yield Finding("settings", error.message, f"mend or unset {error.culprit}")
        return
    yield Finding("settings", "readable")
    if "store" in runtime.model_fields_set or not all(map(runtime.address_of, NOUNS)):
        yield _store(runtime)
        yield from _hashes(runtime)
    else:
        found_here = (
            "the services' own; `demiurge import` and `demiurge train` would use this machine's, "
            f"{runtime.store}, unless DEMIURGE_STORE is set"
        )
        yield Finding("store", found_here)
    from services.query.settings import QuerySettings

    try:
        query = load(QuerySettings)
    except ConfigurationError as error:
        yield Finding("settings", error.message, f"mend or unset {error.culprit}")
        return
    from services.cli import peers

    yield from peers.look(runtime)
    if runtime.address_of("query"):
        return
    if not query.url:
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
    from services.runtime.object_store.opening import folder_of, store_is_there

    try:
        folder = folder_of(runtime)
        if folder:
            return _folder("store", folder)
        there = store_is_there(runtime)
    except ConfigurationError as error:
        return Finding("store", error.message, f"mend or unset {error.culprit}")
    except DemiurgeError as error:
        return Finding("store", error.message, "mend the DEMIURGE_S3_ variables, or the server")
    state = "reachable" if there else "reachable; its bucket is made when it is first used"
    return Finding("store", f"{runtime.store}, {state}")


def _hashes(runtime: "RuntimeSettings") -> Iterator[Finding]:
    """Whether the store's folder, where it is one, can record with each object what it holds."""
    from services.errors import ConfigurationError
    from services.runtime.object_store.folder import records_hashes
    from services.runtime.object_store.opening import folder_of

    with suppress(ConfigurationError, OSError):  # told above
        folder = folder_of(runtime)
        if folder and not records_hashes(_existing(folder)):
            found = (
                f"{folder}: its filesystem has no extended attributes, so no hashes are recorded "
                "there, and damage is noticed only where a record names the hash"
            )
            yield Finding("hashes", found, mark="unknown")


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())


def _folder(subject: str, folder: Path) -> Finding:
    existing = _existing(folder)
    try:
        free = shutil.disk_usage(existing).free
        tempfile.TemporaryFile(dir=existing).close()
    except OSError as error:
        return Finding(subject, f"{folder}: {error.strerror}", "choose a folder you may write to")
    found = f"{folder}, {free / GIBIBYTE:.0f} GiB free"
    return Finding(subject, found, "make room" if free < LEAST_FREE_BYTES else "")


def _models() -> Iterator[Finding]:
    """How many models there are: where a service is elsewhere, by its word."""
    from services.cli import peers
    from services.errors import DemiurgeError
    from services.runtime.model_store import FAMILIES, ModelStore
    from services.runtime.object_store.opening import open_store, store_is_there
    from services.runtime.settings import RuntimeSettings, load

    try:
        runtime = load(RuntimeSettings)
        counts = peers.counted(runtime)
        elsewhere = ", as the services list them" if counts else ""
        here = [family for family in FAMILIES if family not in counts]
        if here and store_is_there(runtime):
            models = ModelStore(open_store(runtime))
            counts.update({family: sum(1 for _ in models.list(family)) for family in here})
        elif not counts:
            yield Finding("models", "none, there is no store yet")
            return
    except DemiurgeError as error:
        yield Finding("models", error.message, "see the lines above")
        return
    listed = ", ".join(f"{counts[family]} {family}" for family in FAMILIES)
    yield Finding("models", f"{listed}{elsewhere}")


LOOKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    _python,
    _packages,
    _device,
    _settings,
    _models,
)
