"""One sitting of a training: from where it stands to its end, or to where it is stopped."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from services.cli.corpus import Corpus
from services.cli.progress import Reporter
from services.cli.training import families
from services.cli.training.record import Record, Records
from services.cli.training.settings import from_json
from services.errors import DemiurgeError, NotFoundError
from services.runtime.model_store import ModelStore, ModelVersion
from services.runtime.object_store.port import ObjectStore

if TYPE_CHECKING:
    from services.cli.training.course import Course
    from services.cli.training.keeper import Keeper
    from services.cli.training.plan import Plan
    from services.cli.training.tracking import Tracker
    from services.cli.training.trainer import Trainer
    from services.learning.world import World


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
    begins: bool = False
    """Whether it is the first one."""
    prolongs: bool = False
    """Whether steps were asked for, so that it goes on where patience had ended it."""


def sit(record: Record, corpus: Corpus, sitting: Sitting, workshop: Workshop) -> ModelVersion:
    """Trains as recorded, in the processes that there are; the best version, judged.

    Raises what the family's trainer does, and SystemExit if a signal stops it.
    """
    from services.cli.training.fit import fit
    from services.cli.training.keeper import Keeper
    from services.cli.training.plan import Plan
    from services.learning.array_cache import ArrayCache
    from services.learning.device import open_device
    from services.learning.world import joined

    reporter, records = workshop.progress, Records(workshop.store)
    with joined(sitting.device) as world:
        record = world.from_first(record)
        named = str(open_device(sitting.device, "--device"))
        device = str(open_device(world.device(named), "--device"))
        reporter.say(f"{record.family} {record.id}: learning from {corpus.place}")
        cache = ArrayCache(workshop.home / "cache")
        site = families.Site(corpus, device, world, cache, reporter)
        settings = from_json(families.settings_class(record.family), record.settings)
        made = families.make(record.family, settings, record.seed, site)
        if world.is_first and sitting.begins:
            # Not before: what cannot be trained leaves nothing behind.
            records.begin(record)
        plan = Plan(
            family=record.family,
            figure=made.figure,
            steps=record.steps if record.steps is not None else made.steps,
            every=record.every,
            minutes=sitting.minutes,
            patience=made.patience,
        )
        version = None
        with _tracker(record, made.trainer, workshop, world) as tracker:
            keeper = Keeper(record, workshop.store, tracker) if tracker else None
            course = _restored(made.trainer, keeper, reporter, world)
            if sitting.prolongs:
                course = _patient_again(course, plan, made.trainer.steps, reporter)
            if not plan.is_over(made.trainer.steps, course.worse):
                record = replace(record, finished=0)
            if keeper and not sitting.begins:
                # Not before: a trainer may refuse to be prolonged.
                records.write(record)
            course = fit(made.trainer, plan, course, keeper, reporter, world)
            if tracker:
                version = _judged(record, made, device, workshop)
                tracker.publish(ModelStore(workshop.store), version)
                if plan.is_over(made.trainer.steps, course.worse):
                    finished = replace(record, finished=made.trainer.steps)
                    records.finish(finished, version.step)
        version = world.from_first(version)
    if version is None:
        raise NotFoundError(f"{record.family} {record.id} has no version yet", culprit=record.id)
    return version


def _tracker(
    record: Record, trainer: "Trainer", workshop: Workshop, world: "World"
) -> "AbstractContextManager[Tracker | None]":
    from services.cli.training.tracking import Tracker

    if not world.is_first:
        return nullcontext()
    name = f"{record.family} {record.corpus}"
    folder = workshop.home / "wandb"
    return Tracker(record.id, name, trainer.config(), folder, workshop.progress.say)


def _restored(
    trainer: "Trainer", keeper: "Keeper | None", reporter: Reporter, world: "World"
) -> "Course":
    """Sets the trainer, and the log, to the newest checkpoint; the course so far."""
    from services.cli.training.course import Course

    # Read once, so that all processes go on from the same step.
    stored = world.from_first(keeper.checkpoints.newest(reporter.say) if keeper else None)
    course = Course()
    if stored:
        step, state = stored
        trainer.load_state_dict(state["trainer"])
        course = Course(**state["course"])
        reporter.say(f"goes on after step {step}")
    if keeper:
        keeper.goes_on_from(trainer.steps)
    return course


def _patient_again(course: "Course", plan: "Plan", step: int, reporter: Reporter) -> "Course":
    """Counts validations anew if they had ended a training that is asked for more steps."""
    if plan.has_no_step_left(step) or not plan.has_no_patience_left(course.worse):
        return course
    reporter.say(
        f"training {plan.family}: {course.worse} validations were no better than that of step "
        f"{course.best_step}, which had ended it; it goes on to step {plan.steps}, and they are "
        "counted anew"
    )
    return replace(course, worse=0)


def _judged(record: Record, made: families.Made, device: str, workshop: Workshop) -> ModelVersion:
    """The best version, with what can be heard of it."""
    from services.cli.training.judging import judge_version

    models = ModelStore(workshop.store)
    version = models.find(record.family, record.id)
    try:
        return judge_version(version, made.sounds, models, workshop.progress, device=device)
    except DemiurgeError as error:
        workshop.progress.say(f"{record.family} {record.id}: not judged: {error.message}")
        return version
