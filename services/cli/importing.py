"""`demiurge import`: models of the published system, or of another store, into the model store."""

from collections.abc import Callable
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from services.errors import InvalidInputError, NotFoundError

app = typer.Typer(add_completion=False, rich_markup_mode=None)


class Rollout(StrEnum):
    """How a predictor goes on beyond its window."""

    SLIDING = "sliding"
    PUBLISHED = "published"


class Imported(NamedTuple):
    """A foreign checkpoint in our own layout."""

    family: str
    config: dict[str, Any]
    weights: bytes


@app.command("import")
def import_checkpoint(
    folder: Annotated[
        Path,
        typer.Argument(
            help="Folder of one training: netG.pt and args.yml, params.Generator.latest.torch with "
            "mean.mel.npy and std.mel.npy, or a .ckpt with model_args.json and data_stat.npz. "
            "Or a model of another store: its folder models/FAMILY/ID."
        ),
    ],
    checkpoint: Annotated[
        str, typer.Option(help="File to take where the folder holds several.")
    ] = "",
    model_id: Annotated[
        str,
        typer.Option(
            "--id",
            help="Id to give it. Else it is made from the content; a store's model keeps its own.",
        ),
    ] = "",
    rollout: Annotated[
        Rollout,
        typer.Option(
            help="How a predictor goes on beyond its window. sliding: it looks at its last frames; "
            "published: an encoder-only one at all frames so far."
        ),
    ] = Rollout.SLIDING,
) -> None:
    """Take in a MelGAN, UNAGAN or predictor: of the published system, or of another store.

    Nothing in a checkpoint is run: one that holds more than weights and plain settings is refused.
    """
    import hashlib

    import orjson

    from services.cli.own_models import own_model
    from services.runtime.model_store import ModelStore
    from services.runtime.object_store.opening import open_store
    from services.runtime.settings import RuntimeSettings, load

    if not folder.is_dir():
        raise NotFoundError(f"{folder} is not a folder", culprit=str(folder))
    own = None if checkpoint else own_model(folder)
    if own:
        models = ModelStore(open_store(load(RuntimeSettings)))
        copied = own.copy_into(models, model_id or folder.resolve().name)
        typer.echo(f"{own.family} {copied.version_id}")
        return
    imported = read_folder(folder, checkpoint, rollout)
    content = imported.weights + orjson.dumps(imported.config, option=orjson.OPT_SORT_KEYS)
    version = ModelStore(open_store(load(RuntimeSettings))).save(
        imported.family,
        model_id or hashlib.sha256(content).hexdigest()[:8],
        0,
        weights=imported.weights,
        config=imported.config,
        card=f"# {imported.family}\n\nImported from a checkpoint of the published system, "
        f"folder {folder.resolve().name!r}.\n",
        best=True,
    )
    typer.echo(f"{imported.family} {version.version_id}")


def read_folder(folder: Path, checkpoint: str = "", rollout: Rollout = Rollout.SLIDING) -> Imported:
    """The model of a published training's folder; the family is told by the file names.

    Raises InvalidInputError, naming folder or file, for what is no published model, and
    UntrustedCheckpointError for a checkpoint that holds more than weights.
    """
    readers: tuple[tuple[tuple[str, ...], Callable[[Path, str], Imported]], ...] = (
        (("best_netG.pt", "netG.pt"), _melgan),
        (("params.Generator.best.torch", "params.Generator.latest.torch"), _unagan),
        (("checkpoint.ckpt", "last.ckpt"), partial(_predictor, rollout)),
    )
    patterns = ("*netG*.pt", "params.Generator*.torch", "*.ckpt")
    for (preferred, read), pattern in zip(readers, patterns, strict=True):
        names = sorted(path.name for path in folder.glob(pattern))
        if checkpoint in names or (names and not checkpoint):
            return read(folder, checkpoint or _choice(folder, names, preferred))
    wanted = checkpoint or (
        "model: neither netG.pt, params.Generator.*.torch or .ckpt, nor best.json with its steps"
    )
    raise InvalidInputError(f"{folder} holds no {wanted}", culprit=str(folder))


def _choice(folder: Path, names: list[str], preferred: tuple[str, ...]) -> str:
    if len(names) == 1:
        return names[0]
    for name in preferred:
        if name in names:
            return name
    raise InvalidInputError(
        f"{folder} holds several checkpoints: choose one by --checkpoint ({', '.join(names)})",
        culprit=str(folder),
    )


def _melgan(folder: Path, name: str) -> Imported:
    from services.cli.foreign import load_arguments, load_checkpoint
    from services.synth.melgan.generator import save_generator
    from services.synth.melgan.published import read_generator

    arguments = load_arguments(_beside(folder, "args.yml"))
    generator = read_generator(arguments, load_checkpoint(folder / name))
    config = {"family": "melgan", **generator.settings.to_config()}
    return Imported("melgan", config, save_generator(generator))


def _unagan(folder: Path, name: str) -> Imported:
    from services.cli.foreign import load_array, load_checkpoint, load_json
    from services.synth.unagan.published import import_generator

    mean = load_array(_beside(folder, "mean.mel.npy"))
    std = load_array(_beside(folder, "std.mel.npy"))
    settings = folder / "config.json"
    weights, config = import_generator(
        load_checkpoint(folder / name),
        mean,
        std,
        load_json(settings) if settings.exists() else None,
    )
    return Imported("unagan", {"family": "unagan", **config}, weights)


def _predictor(rollout: Rollout, folder: Path, name: str) -> Imported:
    from safetensors.torch import save

    from services.cli.foreign import load_archive, load_checkpoint, load_json
    from services.predictor.published import from_published

    statistics = folder / "data_stat.npz"
    if not statistics.exists():
        # The published training keeps one for all runs on the same data, a folder above.
        statistics = _beside(folder.resolve().parent, "data_stat.npz")
    settings = folder / "model_args.json"
    config, state = from_published(
        load_checkpoint(folder / name),
        load_archive(statistics),
        load_json(settings) if settings.exists() else None,
        rollout=rollout.value,
    )
    return Imported("predictor", config, save(state))


def _beside(folder: Path, name: str) -> Path:
    if not (folder / name).is_file():
        raise InvalidInputError(
            f"{folder} holds no {name}, which belongs to the checkpoint", culprit=name
        )
    return folder / name
