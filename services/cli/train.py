"""`demiurge train`: a MelGAN, an UNAGAN or a predictor from recordings."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.cli.options import MAX_SEED, number
from services.cli.training.flags import SettingsCommand, flag_names

if TYPE_CHECKING:
    from services.cli.training.order import Order

MAX_MINUTES = 60 * 24 * 365
DEFAULT_PRESET = "demo-cpu"
# What may be given beside --resume: all else is recorded.
WITH_RESUME = {"resume", "steps", "minutes", "device", "recorded", "database"}
FAMILIES = {
    "melgan": "Train a MelGAN: the vocoder that turns mel spectrograms into sound.",
    "unagan": "Train an UNAGAN: the generator that sings new mel spectrograms.",
    "predictor": "Train a predictor: the model that continues descriptor sequences.",
}

PUBLISHED_ELSEWHERE = {
    "--experiment-dir": "models and logs are kept where DEMIURGE_HOME says",
    "--save-interval": "give --every, in steps",
    "--remove-outliers": "give --outlier-deviations, 5 as published or 0 for none",
    "--descriptor-size": "the descriptors tell it",
    "--positional-encoding-dropout": "position codes are never dropped, as by its default of 0",
    "--notes": "set WANDB_NOTES",
}
"""Flags of the published predictor script that have no counterpart of the same meaning."""

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True)


@app.callback()
def train() -> None:
    """Train a MelGAN, an UNAGAN or a predictor on your recordings.

    The model is stored under a new id, the best step by sound that was held out. A training that
    was stopped goes on when it is called again. W&B records the course offline unless WANDB_MODE
    says otherwise.
    """


class TrainCommand(SettingsCommand):
    """One family, with a flag for every value of its presets."""

    @staticmethod
    def settings_class(name: str) -> type[Any]:
        """The dataclass of its settings."""
        from services.cli.training.families import settings_class

        return settings_class(name)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuses the published script's flags that are not ours, each with what to do instead."""
        for word in args if self.name == "predictor" else ():
            flag = word.partition("=")[0].replace("_", "-")
            if flag in PUBLISHED_ELSEWHERE:
                raise typer.BadParameter(f"there is no {flag}: {PUBLISHED_ELSEWHERE[flag]}")
        return super().parse_args(ctx, args)


def train_family(
    context: typer.Context,
    recorded: Annotated[
        Path | None,
        typer.Option(
            "--recorded",
            "--audio-db-dir",
            "--data-path",
            help="Folder of recordings to learn from; for a predictor, of descriptor files too.",
        ),
    ] = None,
    database: Annotated[
        str, typer.Option(help="Instead of a folder: an audio database of the store.")
    ] = "",
    preset: Annotated[
        str,
        typer.Option(
            help="Named settings: demo-cpu for a laptop; a name that does not exist lists all."
        ),
    ] = DEFAULT_PRESET,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Updates in all; the preset's own if not given.")
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=MAX_MINUTES,
            callback=lambda value: value if value is None else number(value),
            help="Train so long now, and go on with the same call another time. Where neither "
            "--steps nor the preset says how many, time alone ends it.",
        ),
    ] = None,
    every: Annotated[
        int | None,
        typer.Option(min=1, help="Steps from one validation to the next; a tenth of all."),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED, help="Where all chance comes from.")
    ] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1.")] = "auto",
    resume: Annotated[
        str,
        typer.Option(
            "--resume",
            "--resume-run-id",
            help="Id of a training that goes on with its recorded settings; --steps prolongs it.",
        ),
    ] = "",
    show: Annotated[
        bool,
        typer.Option("--show", help="Print all settings and their values; train nothing."),
    ] = False,
) -> None:
    """Train one family."""
    from services.cli.training.order import Order

    family = str(context.command.name)
    order = Order(
        family=family,
        folder=recorded,
        preset=preset,
        seed=seed,
        device=device,
        steps=steps,
        overrides=context.obj,
        database=database,
        every=every,
        minutes=minutes,
    )
    if show:
        _show(order)
    elif resume:
        _refuse(context, {*WITH_RESUME}, "with --resume, recorded settings hold: leave out")
        _train(order, resume)
    else:
        _train(order)


for _family, _help in FAMILIES.items():
    app.command(_family, cls=TrainCommand, help=_help)(train_family)


def _train(order: "Order", resume: str = "") -> None:
    from services.cli.progress import Progress
    from services.cli.training.begin import go_on, train
    from services.cli.training.sitting import Sitting, Workshop
    from services.errors import InvalidInputError

    if order.folder and order.database:
        raise InvalidInputError("give --recorded or --database, not both", culprit="--database")
    if not (order.folder or order.database or resume):
        raise InvalidInputError("give --recorded FOLDER or --database NAME", culprit="--recorded")
    # torchrun starts several: one of them speaks.
    first = os.environ.get("RANK", "0") == "0"
    with Progress(silent=not first) as progress:
        workshop = Workshop.here(progress)
        if resume:
            version = go_on(
                order.family,
                resume,
                workshop,
                Sitting(order.device, order.minutes),
                steps=order.steps,
                folder=order.folder,
                database=order.database,
            )
        else:
            version = train(order, workshop)
    if first:
        typer.echo(version.version_id)


def _refuse(context: typer.Context, allowed: set[str], message: str) -> None:
    """Raises InvalidInputError naming what was given beside what is allowed."""
    from services.cli.training.families import settings_class
    from services.cli.training.settings import settings_of
    from services.errors import InvalidInputError

    given = [
        f"--{name.replace('_', '-')}"
        for name in context.params
        if name not in allowed and str(context.get_parameter_source(name)).endswith("COMMANDLINE")
    ]
    names = flag_names(list(settings_of(settings_class(str(context.command.name)))))
    given += [names[path] for path in context.obj]
    if given:
        raise InvalidInputError(f"{message} {', '.join(given)}", culprit=given[0])


def _show(order: "Order") -> None:
    """All settings as this call would train, with their flags and what they do."""
    from services.cli.training.begin import ordered_settings
    from services.cli.training.settings import settings_of, value_of

    settings = ordered_settings(order)
    listed = list(settings_of(type(settings)))
    names = flag_names(listed)
    for setting in listed:
        value = value_of(settings, setting.path)
        text = ",".join(map(str, value)) if isinstance(value, tuple) else value
        flag = names.get(setting.path, f"--{setting.path}")
        if isinstance(value, bool):
            shown = flag if value else flag.replace("--", "--no-", 1)
        else:
            shown = f"{flag} {text}"
        typer.echo(f"{shown}\n    {setting.documentation}")
