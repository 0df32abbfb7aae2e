"""The card of a model: what a person wants to know of it, as Markdown."""

import shlex
from collections.abc import Mapping
from typing import Any

from services.cli.training.course import Course
from services.cli.training.families import settings_class
from services.cli.training.flags import flag_names
from services.cli.training.record import Record
from services.cli.training.settings import settings_of

FOLDER = "FOLDER"


def card(record: Record, course: Course, config: Mapping[str, Any]) -> str:
    """Where the model of the last validation comes from, how good it is, how to make it again.

    `config` is the trainer's. What judging finds out is added at the end.
    """
    training = config["training"]
    planned = f" of {record.steps}" if record.steps else ""
    rows = "\n".join(f"| {name} | {value:.6g} |" for name, value in sorted(course.figures.items()))
    settings = "\n".join(f"| {name} | {value} |" for name, value in _flat(record.settings))
    return (
        f"# {record.family} {record.id}, step {course.validated}\n\n"
        f"Trained on {record.corpus}, {course.validated}{planned} steps, "
        f"{course.seconds:.0f} s of training. The files held out choose the best step, and the "
        "same files judge it: on others its figures may be worse.\n\n"
        f"- Corpus: {len(record.files)} files, SHA-256 of names and contents "
        f"`{record.corpus_sha256}`\n"
        f"- Held out: {', '.join(training['validation_files'])}\n"
        f"- Made again by: `{command(record, course.validated)}`{_place(record)}\n\n"
        f"| figure | value |\n|---|---|\n{rows}\n\n"
        f"## Settings\n\nPreset `{record.preset}`, seed {record.seed}.\n\n"
        f"| setting | value |\n|---|---|\n{settings}\n"
    )


def command(record: Record, step: int) -> str:
    """The call that makes the same training again, with `FOLDER` for a folder of recordings.

    A training that time alone ended is made again as far as `step`, which is then its only
    validation, and so its best.
    """
    words = ["demiurge", "train", record.family]
    words += ["--recorded", FOLDER] if record.folder else ["--database", record.corpus]
    words += ["--preset", record.preset, "--seed", str(record.seed)]
    if record.steps is not None:
        words += ["--steps", str(record.steps)]
    elif "steps" in record.settings and "epochs" not in record.settings:
        words += ["--steps", str(step)]
        words += ["--every", str(step)] if record.every is None else []
    if record.every is not None:
        words += ["--every", str(record.every)]
    names = flag_names(list(settings_of(settings_class(record.family))))
    for path, value in record.overrides.items():
        flag = names[path]
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag.removeprefix('--')}")
        else:
            words += [flag, _text(value)]
    return shlex.join(words)


def _place(record: Record) -> str:
    """What is to be put for `FOLDER`: a path would hold on one machine only."""
    if not record.folder:
        return ""
    return f", where {FOLDER} holds the recordings of that SHA-256, here called {record.corpus}"


def _flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{name}.")
        else:
            found.append((f"{prefix}{name}", _text(value)))
    return found


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
