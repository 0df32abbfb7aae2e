"""`demiurge train`: a MelGAN, an UNAGAN or a predictor from recordings."""

from pathlib import Path
from typing import Annotated, Any

import typer

from services.cli.options import MAX_SEED

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True)

Folder = Annotated[
    Path,
    typer.Option(
        "--recorded", "--audio-db-dir", "--data-path", help="Folder of recordings to learn from."
    ),
]
Preset = Annotated[
    str,
    typer.Option(
        help="Named settings: demo-cpu for a laptop; a name that does not exist lists all."
    ),
]
Steps = Annotated[int | None, typer.Option(min=1, help="Updates; the preset's own if not given.")]
Seed = Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Where all chance comes from.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1.")]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Items a step.")]
LearningRate = Annotated[float | None, typer.Option(min=0, help="Of Adam.")]


@app.callback()
def train() -> None:
    """Train a MelGAN, an UNAGAN or a predictor on your recordings.

    The model is stored under a new id, the best step by sound that was held out. W&B records the
    course offline unless WANDB_MODE says otherwise.
    """


@app.command()
def melgan(
    recorded: Folder,
    preset: Preset = "demo-cpu",
    steps: Steps = None,
    seed: Seed = 0,
    device: Device = "auto",
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
) -> None:
    """Train a MelGAN: the vocoder that turns mel spectrograms into sound."""
    _train(
        "melgan",
        recorded,
        preset,
        steps,
        seed,
        device,
        batch_size=batch_size,
        learning_rate=learning_rate,
    )


@app.command()
def unagan(
    recorded: Folder,
    preset: Preset = "demo-cpu",
    steps: Steps = None,
    seed: Seed = 0,
    device: Device = "auto",
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
) -> None:
    """Train an UNAGAN: the generator that sings new mel spectrograms."""
    _train(
        "unagan",
        recorded,
        preset,
        steps,
        seed,
        device,
        batch_size=batch_size,
        learning_rate=learning_rate,
    )


@app.command()
def predictor(
    recorded: Folder,
    preset: Preset = "demo-cpu",
    steps: Steps = None,
    seed: Seed = 0,
    device: Device = "auto",
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    selected_model: Annotated[
        str | None,
        typer.Option(
            help="LSTM, LSTMEncoderDecoderModel, TransformerEncoderOnlyModel or TransformerModel."
        ),
    ] = None,
    window_size: Annotated[int | None, typer.Option(min=1, help="Frames looked at.")] = None,
    forecast_size: Annotated[
        int | None, typer.Option(min=1, help="Frames given at once, where the model gives several.")
    ] = None,
    hidden_size: Annotated[int | None, typer.Option(min=1, help="Width of an LSTM.")] = None,
    num_layers: Annotated[int | None, typer.Option(min=1, help="Layers.")] = None,
    nhead: Annotated[int | None, typer.Option(min=1, help="Attention heads.")] = None,
    dim_feedforward: Annotated[
        int | None, typer.Option(min=1, help="Width of feed-forward layers.")
    ] = None,
    dim_pos_encoding: Annotated[
        int | None, typer.Option(min=0, help="Width of the position code; 0 means none.")
    ] = None,
    dropout: Annotated[float | None, typer.Option(min=0, max=1, help="Share dropped.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Times that all is seen.")] = None,
) -> None:
    """Train a predictor: the model that continues descriptor sequences."""
    _train(
        "predictor",
        recorded,
        preset,
        steps,
        seed,
        device,
        batch_size=batch_size,
        learning_rate=learning_rate,
        selected_model=selected_model,
        window_size=window_size,
        forecast_size=forecast_size,
        hidden_size=hidden_size,
        num_layers=num_layers,
        nhead=nhead,
        dim_feedforward=dim_feedforward,
        dim_pos_encoding=dim_pos_encoding,
        dropout=dropout,
        epochs=epochs,
    )


def _train(
    family: str, folder: Path, preset: str, steps: int | None, seed: int, device: str, **values: Any
) -> None:
    from services.cli.progress import Progress
    from services.cli.training.order import Order
    from services.cli.training.workshop import Workshop
    from services.cli.training.workshop import train as train_order

    overrides = {name: value for name, value in values.items() if value is not None}
    with Progress() as progress:
        order = Order(family, folder, preset, seed, device, steps, overrides)
        version = train_order(order, Workshop.here(progress))
    typer.echo(version.version_id)
