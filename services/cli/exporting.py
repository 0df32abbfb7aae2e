"""`demiurge export`: a model as a folder, to give away or to keep beside a project."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, rich_markup_mode=None)


class Family(StrEnum):
    """Whose model it is."""

    MELGAN = "melgan"
    UNAGAN = "unagan"
    PREDICTOR = "predictor"


@app.command()
def export(
    family: Annotated[Family, typer.Argument(help="melgan, unagan or predictor.")],
    model: Annotated[str, typer.Argument(help="Its id: the best step, or id@step for another.")],
    out: Annotated[
        Path, typer.Option(help="It is put below this folder, into models/FAMILY/ID.")
    ] = Path(),
    half: Annotated[
        bool, typer.Option("--half", help="Weights in 16 bits: half the size, nearly the sound.")
    ] = False,
) -> None:
    """Write a model into a folder, with its card, figures and pictures.

    `demiurge import` takes it in elsewhere.
    """
    from services.cli.beforehand import check_output
    from services.runtime.model_store import ModelStore
    from services.runtime.object_store.folder import FolderStore
    from services.runtime.object_store.opening import open_store
    from services.runtime.settings import RuntimeSettings, load

    check_output("--out", out)
    models = ModelStore(open_store(load(RuntimeSettings)))
    target = ModelStore(FolderStore(out))
    version = models.find(family, model)
    weights, config = models.read_weights(version), dict(version.config)
    # The target's own weights have another size and hash.
    del config["weights_sha256"], config["weights_size_bytes"]
    card = models.read_card(version)
    exported = target.save(
        family,
        version.id,
        version.step,
        weights=_halved(weights) if half else weights,
        config=config,
        card=card,
        best=True,
    )
    target.describe(exported, figures=version.figures, card=card, pictures=models.pictures(version))
    typer.echo(str(out / "models" / family / version.id))


def _halved(weights: bytes) -> bytes:
    """The same tensors (safetensors) in float16 where they were float32."""
    import torch
    from safetensors.torch import load, save

    return save(
        {
            name: tensor.half() if tensor.dtype == torch.float32 else tensor
            for name, tensor in load(weights).items()
        }
    )
