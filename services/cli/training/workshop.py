"""Training from an order to a stored, judged model; or on from where one was left."""

import secrets
import string
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from services.cli.corpus import Corpus, database_corpus, folder_corpus
from services.cli.progress import Reporter
from services.cli.training import families
from services.cli.training.order import Order
from services.cli.training.record import Record, Records, files_of
from services.cli.training.settings import from_json, overridden, to_json
from services.errors import DemiurgeError, InvalidInputError, NotFoundError
from services.runtime.model_store import ModelStore, ModelVersion
from services.runtime.object_store.port import ObjectStore

if TYPE_CHECKING:
    from services.synth.training.world import World


@dataclass(frozen=True)
class Workshop:
    """Where models are kept, and who is told."""

    store: ObjectStore
    progress: Reporter
    home: Path
    """Where W&B's own files and the cache lie."""

    @classmethod
    def here(cls, progress: Reporter) -> "Workshop":
        """The store and the home that the settings name."""
        from services.runtime.object_store.opening import open_store
        from services.runtime.settings import RuntimeSettings, load

        runtime = load(RuntimeSettings)
        return cls(open_store(runtime), progress, runtime.home)


@dataclass(frozen=True)
class Sitting:
    """How one call trains: nothing here changes what is trained."""

    device: str = "auto"
    minutes: float | None = None


def train(order: Order, workshop: Workshop) -> ModelVersion:
    """The best version that the order makes; the same order again finds it, or goes on.

    Raises NotFoundError for an empty folder or an unknown preset, InvalidInputError if nothing can
    be read or the settings do not work, and SystemExit if a signal stops it.
    """
    settings = ordered_settings(order)
    corpus = _corpus(order.folder, order.database, workshop)
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
        files=files_of(corpus),
    )
    known = Records(workshop.store).like(record)
    if known and known.is_finished:
        try:
            version = ModelStore(workshop.store).find(known.family, known.id)
        except NotFoundError:
            # Deleted since.
            known = None
        else:
            workshop.progress.say(
                f"{order.family}: found {known.id}, trained on the same recordings before"
            )
            return version
    return _work(known or record, corpus, Sitting(order.device, order.minutes), workshop)


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
    are.
    """
    records = Records(workshop.store)
    record = records.read(family, model_id)
    if not (folder or database):
        folder = Path(record.folder) if record.folder else None
        database = "" if record.folder else record.corpus
    corpus = _corpus(folder, database, workshop)
    record.refuse_other(corpus)
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
    return _work(record, corpus, sitting, workshop)


def ordered_settings(order: Order) -> Any:
    """The preset with what replaces its values.

    Raises InvalidInputError if neither it nor the order says how long to train.
    """
    settings = overridden(families.preset(order.family, order.preset), order.overrides)
    if not hasattr(settings, "steps"):
        return settings
    if order.steps is not None or order.minutes is not None:
        return overridden(settings, {"steps": order.steps})
    if settings.steps is None:
        raise InvalidInputError(
            f"preset {order.preset!r} does not say how long to train: give --steps or --minutes",
            culprit="--steps",
        )
    return settings


def new_model_id() -> str:
    """A fresh id, as W&B makes them: eight lower-case letters and digits."""
    alphabet = string.ascii_lowercase + string.digits
    return "".join(secrets.choice(alphabet) for _ in range(8))


def _work(record: Record, corpus: Corpus, sitting: Sitting, workshop: Workshop) -> ModelVersion:
    """Trains as recorded, in the processes that there are; the best version, judged."""
    from services.cli.training.course import Course
    from services.cli.training.fit import Plan, fit
    from services.cli.training.keeper import Keeper
    from services.cli.training.tracking import Tracker
    from services.synth.array_cache import ArrayCache
    from services.synth.training.world import joined

    family, reporter = record.family, workshop.progress
    with joined() as world:
        record = world.from_first(record)
        if world.is_first:
            Records(workshop.store).begin(record)
        reporter.say(f"{family} {record.id}: learning from {corpus.place}")
        device = _device(sitting.device, world)
        settings = from_json(families.settings_class(family), record.settings)
        cache = ArrayCache(workshop.home / "cache")
        site = families.Site(corpus, device, world, cache, reporter)
        made = families.make(family, settings, record.seed, site)
        trainer = made.trainer
        tracking = (
            Tracker(
                record.id,
                f"{family} {record.corpus}",
                trainer.config(),
                workshop.home / "wandb",
                reporter.say,
            )
            if world.is_first
            else nullcontext()
        )
        with tracking as tracker:
            keeper = Keeper(record, workshop.store, tracker) if tracker else None
            stored = world.from_first(keeper.checkpoints.newest(reporter.say) if keeper else None)
            course = Course()
            if stored:
                step, state = stored
                trainer.load_state_dict(state["trainer"])
                course = Course(**state["course"])
                reporter.say(f"{family} {record.id}: goes on after step {step}")
            if keeper:
                keeper.goes_on_from(trainer.steps)
            plan = Plan(
                family=family,
                figure=made.figure,
                steps=record.steps if record.steps is not None else made.steps,
                every=record.every,
                minutes=sitting.minutes,
            )
            fit(trainer, plan, course, keeper, reporter, world)
            version = None
            if tracker:
                version = _judged(record, made, device, workshop)
                tracker.publish(ModelStore(workshop.store), version)
                if plan.steps is not None and trainer.steps >= plan.steps:
                    Records(workshop.store).write(replace(record, finished=trainer.steps))
            version = world.from_first(version)
    if version is None:
        raise NotFoundError(f"{family} {record.id}: nothing was stored", culprit=record.id)
    return version


def _judged(record: Record, made: families.Made, device: str, workshop: Workshop) -> ModelVersion:
    """The best version, with what can be heard of it."""
    from services.cli.training.judging import judge_version

    models = ModelStore(workshop.store)
    version = models.find(record.family, record.id)
    try:
        return judge_version(version, made.clips, models, workshop.progress, device=device)
    except DemiurgeError as error:
        workshop.progress.say(f"{record.family} {record.id}: not judged: {error.message}")
        return version


def _corpus(folder: Path | None, database: str, workshop: Workshop) -> Corpus:
    if folder is not None:
        return folder_corpus(folder)
    return database_corpus(workshop.store, database)


def _device(name: str, world: "World") -> str:
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    name = world.device(name)
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise InvalidInputError(
            f"--device {name}: this machine offers no such device", culprit="--device"
        ) from error
    return name
