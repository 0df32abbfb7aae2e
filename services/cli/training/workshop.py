"""Training from recordings: each family's trainer, composed with audio, store and tracking."""

import hashlib
import secrets
import string
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import orjson

from services.cli.corpus import fingerprint, recordings, storable
from services.cli.progress import Reporter
from services.cli.training.families import TRAINERS
from services.cli.training.fit import Fit, fit
from services.cli.training.order import Order
from services.errors import NotFoundError
from services.runtime.model_store import ModelStore, ModelVersion
from services.runtime.object_store.port import ObjectStore

# Raised when the same recordings and settings should make other weights.
ALGORITHM = 1


@dataclass(frozen=True)
class Workshop:
    """Where models are kept, and who is told."""

    store: ObjectStore
    progress: Reporter
    wandb_folder: Path

    @classmethod
    def here(cls, progress: Reporter) -> "Workshop":
        """The store that the settings name; W&B's own files lie in the home."""
        from services.runtime.object_store.opening import open_store
        from services.runtime.settings import RuntimeSettings, load

        runtime = load(RuntimeSettings)
        return cls(open_store(runtime), progress, runtime.home / "wandb")


def train(order: Order, workshop: Workshop) -> ModelVersion:
    """Trains a new model and returns its best step; the same order again finds the model.

    Raises NotFoundError for an empty folder or an unknown preset, InvalidInputError if nothing can
    be read or the settings do not work.
    """
    corpus = recordings(order.folder)
    key = hashlib.sha256(
        orjson.dumps(
            [
                ALGORITHM,
                order.family,
                fingerprint(corpus),
                order.preset,
                order.seed,
                order.steps,
                dict(order.overrides or {}),
            ],
            option=orjson.OPT_SORT_KEYS,
        )
    ).hexdigest()
    marker = f"trained/{order.family}/{key}.json"
    models = ModelStore(workshop.store)
    if workshop.store.exists(marker):
        known = str(orjson.loads(workshop.store.read(marker))["id"])
        # The model may have been deleted since.
        with suppress(NotFoundError):
            version = models.find(order.family, known)
            workshop.progress.say(
                f"{order.family}: found {known}, trained on the same recordings before"
            )
            return version
    workshop.progress.say(f"{order.family}: reading {len(corpus)} recordings in {order.folder}")
    trainer, steps, figure = TRAINERS[order.family](order, workshop.progress)
    plan = Fit(
        family=order.family,
        model_id=new_model_id(),
        corpus=storable(order.folder.resolve().name),
        steps=steps,
        figure=figure,
    )
    version = fit(trainer, plan, models, workshop.progress, workshop.wandb_folder)
    workshop.store.put(marker, orjson.dumps({"id": version.id}))
    return version


def new_model_id() -> str:
    """A fresh id, as W&B makes them: eight lower-case letters and digits."""
    alphabet = string.ascii_lowercase + string.digits
    return "".join(secrets.choice(alphabet) for _ in range(8))
