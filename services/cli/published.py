"""Models as the published system leaves them: which files make one, and one as our own layout."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from services.errors import InvalidInputError


class Rollout(StrEnum):
    """How a predictor goes on beyond its window."""

    SLIDING = "sliding"
    PUBLISHED = "published"


class Imported(NamedTuple):
    """A foreign checkpoint in our own layout."""

    family: str
    config: dict[str, Any]
    weights: bytes


@dataclass(frozen=True)
class Layout:
    """What the published training of one family calls its files."""

    family: str
    pattern: str
    """What names of checkpoints look like."""
    preferred: tuple[str, ...]
    """Checkpoints, the better first."""
    beside: tuple[str, ...]
    """What belongs to a checkpoint."""
    arguments: str
    """The one of them that holds what the training was given, as a W&B run's config does."""


LAYOUTS = (
    Layout("melgan", "*netG*.pt", ("best_netG.pt", "netG.pt"), ("args.yml",), "args.yml"),
    Layout(
        "unagan",
        "params.Generator*.torch",
        ("params.Generator.best.torch", "params.Generator.latest.torch"),
        ("mean.mel.npy", "std.mel.npy", "config.json"),
        "config.json",
    ),
    Layout(
        "predictor",
        "*.ckpt",
        ("checkpoint.ckpt", "last.ckpt"),
        ("model_args.json", "data_stat.npz"),
        "model_args.json",
    ),
)


def choose(names: Iterable[str], checkpoint: str, place: str) -> tuple[Layout, str]:
    """The layout that file names tell, and the checkpoint among them to take; `place` has them.

    Raises InvalidInputError, naming the place, if there is none, or several and `checkpoint`, ""
    for any, names none of them.
    """
    there = sorted(names)
    for layout in LAYOUTS:
        found = [name for name in there if fnmatchcase(name, layout.pattern)]
        if checkpoint in found or (found and not checkpoint):
            return layout, checkpoint or _preferred(layout, found, place)
    wanted = checkpoint or (
        "model: neither netG.pt, params.Generator.*.torch or .ckpt, nor best.json with its steps"
    )
    raise InvalidInputError(f"{place} holds no {wanted}", culprit=place)


def read_folder(folder: Path, checkpoint: str = "", rollout: Rollout = Rollout.SLIDING) -> Imported:
    """The model of a published training's folder; the family is told by the file names.

    Raises InvalidInputError, naming folder or file, for what is no published model, and
    UntrustedCheckpointError for a checkpoint that holds more than weights.
    """
    readers: dict[str, Callable[[Path, str], Imported]] = {
        "melgan": _melgan,
        "unagan": _unagan,
        "predictor": partial(_predictor, rollout),
    }
    names = (path.name for path in folder.iterdir())
    layout, name = choose(names, checkpoint, str(folder))
    return readers[layout.family](folder, name)


def _preferred(layout: Layout, found: list[str], place: str) -> str:
    if len(found) == 1:
        return found[0]
    for name in layout.preferred:
        if name in found:
            return name
    raise InvalidInputError(
        f"{place} holds several checkpoints: choose one by --checkpoint ({', '.join(found)})",
        culprit=place,
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
