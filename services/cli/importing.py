"""`demiurge import`: models of the published system, of another store or of W&B, into the store."""

from pathlib import Path
from typing import Annotated

import typer

from services.cli.published import Rollout, read_folder
from services.errors import NotFoundError

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command("import")
def import_checkpoint(
    source: Annotated[
        str,
        typer.Argument(
            help="Folder of one training: netG.pt and args.yml, params.Generator.latest.torch with "
            "mean.mel.npy and std.mel.npy, or a .ckpt with model_args.json and data_stat.npz. "
            "Or a model of another store: its folder models/FAMILY/ID. "
            "Or a run of W&B that holds either: wandb:ENTITY/PROJECT/RUN_ID."
        ),
    ],
    checkpoint: Annotated[
        str, typer.Option(help="File to take where the folder holds several.")
    ] = "",
    model_id: Annotated[
        str,
        typer.Option(
            "--id",
            help="Id to give it. Else a store's model keeps its own, one of W&B has its run's, and "
            "that of any other is made from the content.",
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
    """Take in a MelGAN, UNAGAN or predictor: of the published system, another store, or W&B.

    Nothing in a checkpoint is run: one that holds more than weights and plain settings is refused.
    """
    from services.cli.wandb_models import fetched, run_path

    path = run_path(source)
    if path:
        with fetched(path, checkpoint) as folder:
            _take(folder, checkpoint, model_id or path.run_id, rollout, f"W&B run {'/'.join(path)}")
        return
    folder = Path(source)
    if not folder.is_dir():
        raise NotFoundError(f"{folder} is not a folder", culprit=str(folder))
    _take(folder, checkpoint, model_id, rollout, f"folder {folder.resolve().name!r}")


def _take(folder: Path, checkpoint: str, model_id: str, rollout: Rollout, origin: str) -> None:
    """Stores the model in a folder and tells its version; without an id it gets one."""
    import hashlib

    import orjson

    from services.cli.own_models import own_model
    from services.runtime.model_store import ModelStore
    from services.runtime.object_store.opening import open_store
    from services.runtime.settings import RuntimeSettings, load

    own = None if checkpoint else own_model(folder)
    models = ModelStore(open_store(load(RuntimeSettings)))
    if own:
        copied = own.copy_into(models, model_id or folder.resolve().name)
        typer.echo(f"{own.family} {copied.version_id}")
        return
    imported = read_folder(folder, checkpoint, rollout)
    content = imported.weights + orjson.dumps(imported.config, option=orjson.OPT_SORT_KEYS)
    version = models.save(
        imported.family,
        model_id or hashlib.sha256(content).hexdigest()[:8],
        0,
        weights=imported.weights,
        config=imported.config,
        card=f"# {imported.family}\n\nImported from a checkpoint of the published system, "
        f"{origin}.\n",
        best=True,
    )
    typer.echo(f"{imported.family} {version.version_id}")
