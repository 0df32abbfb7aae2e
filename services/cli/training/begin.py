"""Beginning a training, or going on with one: from an order, or from its id."""

import secrets
import string
from dataclasses import replace
from pathlib import Path
from typing import Any

from services.cli.corpus import Corpus, database_corpus, folder_corpus
from services.cli.training import families
from services.cli.training.order import Order
from services.cli.training.record import Earlier, Record, Records, files_of
from services.cli.training.settings import overridden, to_json
from services.cli.training.sitting import Sitting, Workshop, sit
from services.errors import InvalidInputError, NotFoundError
from services.runtime.model_store import ModelStore, ModelVersion


def train(order: Order, workshop: Workshop) -> ModelVersion:
    """The best version that the order makes; the same order again finds it, or goes on.

    It finds what it made itself, not what became of it under more steps by `go_on`.

    Raises NotFoundError for an empty folder or an unknown preset, InvalidInputError if nothing can
    be read or the settings do not work, and SystemExit if a signal stops it.
    """
    settings = ordered_settings(order)
    corpus = _corpus(order.family, order.folder, order.database, workshop)
    record = Record(
        family=order.family,
        id=new_model_id(),
        preset=order.preset,
        overrides=dict(order.overrides),
        settings=to_json(settings),
        seed=order.seed,
        steps=getattr(settings, "steps", order.steps),
        every=order.every,
        corpus=corpus.name,
        folder=str(order.folder.resolve()) if order.folder else "",
        files=files_of(corpus, workshop.progress),
    )
    earlier = Records(workshop.store).like(record)
    known = None
    if earlier:
        if version := _made(earlier, record, workshop):
            workshop.progress.say(
                f"{order.family}: found {version.id}, trained on the same recordings before"
            )
            return version
        known = _unfinished(earlier.record, record, workshop)
    sitting = Sitting(order.device, order.minutes, begins=known is None)
    return sit(known or record, corpus, sitting, workshop)


def go_on(
    family: str,
    model_id: str,
    workshop: Workshop,
    sitting: Sitting,
    *,
    steps: int | None = None,
    folder: Path | None = None,
    database: str = "",
) -> ModelVersion:
    """Trains a model on, with its recorded settings, to its last step or a later one.

    The recordings are where they were unless a place is given. Raises NotFoundError for an unknown
    id, ConflictError if the recordings are others, InvalidInputError for fewer steps than there
    are, or if neither steps nor minutes say when it ends.
    """
    records = Records(workshop.store)
    record = records.read(family, model_id)
    endless = "steps" in record.settings and "epochs" not in record.settings
    if endless and record.steps is None and steps is None and sitting.minutes is None:
        raise InvalidInputError(
            f"{family} {model_id} was begun without a number of steps: give --steps or --minutes, "
            "or it would never end",
            culprit="--minutes",
        )
    if not (folder or database):
        folder = Path(record.folder) if record.folder else None
        database = "" if record.folder else record.corpus
    corpus = _corpus(family, folder, database, workshop)
    record.refuse_other(files_of(corpus, workshop.progress))
    if steps is not None:
        if steps < max(record.steps or 0, record.finished):
            raise InvalidInputError(
                f"--steps {steps}: {family} {model_id} is trained for {record.steps} already",
                culprit="--steps",
            )
        settings = record.settings
        if "steps" in settings:
            settings = settings | {"steps": steps}
        record = replace(record, steps=steps, settings=settings)
        sitting = replace(sitting, prolongs=True)
    return sit(record, corpus, sitting, workshop)


def ordered_settings(order: Order) -> Any:
    """The preset with what replaces its values; minutes alone leave its steps as they are.

    Raises InvalidInputError if neither it nor the order says how long to train.
    """
    preset = families.preset(order.family, order.preset, order.overrides.get("selected_model"))
    has_steps = hasattr(preset, "steps")
    steps = {"steps": order.steps} if has_steps and order.steps is not None else {}
    settings = overridden(preset, {**order.overrides, **steps})
    # Where epochs are counted, the recordings tell how long.
    endless = has_steps and settings.steps is None and not hasattr(settings, "epochs")
    if endless and order.minutes is None:
        raise InvalidInputError(
            f"preset {order.preset!r} does not say how long to train: give --steps or --minutes",
            culprit="--steps",
        )
    return settings


def new_model_id() -> str:
    """A fresh id, as W&B makes them: eight lower-case letters and digits."""
    alphabet = string.ascii_lowercase + string.digits
    return "".join(secrets.choice(alphabet) for _ in range(8))


def _made(earlier: Earlier, ordered: Record, workshop: Workshop) -> ModelVersion | None:
    """What the order made, if it came to its end and nobody has deleted it."""
    known, best = earlier
    if not best and not (known.is_finished and known.steps == ordered.steps):
        return None
    try:
        name = f"{known.id}@{best}" if best else known.id
        version = ModelStore(workshop.store).find(known.family, name)
    except NotFoundError:
        return None
    if not best:
        # A kill came between the two writes of its end.
        Records(workshop.store).finish(known, version.step)
    return version


def _unfinished(known: Record, ordered: Record, workshop: Workshop) -> Record | None:
    """What the order goes on with; None if it has to begin anew."""
    if known.steps != ordered.steps:
        workshop.progress.say(
            f"{known.family} {known.id} was begun by this order and then given {known.steps} steps:"
            f" another one begins; `--resume {known.id}` goes on with that one"
        )
        return None
    # Finished, and yet not found: deleted since.
    return None if known.is_finished else known


def _corpus(family: str, folder: Path | None, database: str, workshop: Workshop) -> Corpus:
    if folder is not None:
        return folder_corpus(folder, descriptors=family == "predictor")
    return database_corpus(workshop.store, database)
