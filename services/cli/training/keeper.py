"""What a training leaves while it goes on: its log, its checkpoints, and the versions worth having.

Order matters where the process may die between any two writes. The log is stored before the
checkpoint, and cut back to it by who goes on from there: no step is logged twice. The checkpoint
is stored before the version made of it, so who goes on has the very weights to store it again.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from services.cli.training.card import card
from services.cli.training.checkpoints import Checkpoints
from services.cli.training.course import Course
from services.cli.training.journal import Journal
from services.cli.training.record import Record
from services.cli.training.tracking import Tracker
from services.cli.training.trainer import Trainer
from services.errors import ConflictError
from services.runtime.model_store import ModelStore
from services.runtime.object_store.port import ObjectStore


class Keeper:
    """Of one training, in the first process."""

    def __init__(self, record: Record, store: ObjectStore, tracker: Tracker) -> None:
        self.record = record
        self.checkpoints = Checkpoints(store, record.family, record.id)
        self._models = ModelStore(store)
        self._journal = Journal(store, record.family, record.id)
        self._tracker = tracker

    def goes_on_from(self, step: int) -> None:
        """Forgets what was logged after a step; W&B hears what it may have missed before it."""
        self._journal.rewind(step)
        self._tracker.catch_up(self._journal.entries)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Notes figures; the journal is stored with the next checkpoint."""
        self._journal.record(step, figures)
        self._tracker.log(step, figures)

    def checkpoint(self, trainer: Trainer, course: Course) -> None:
        """Stores all that going on from here needs."""
        self._journal.flush()
        state = {"trainer": trainer.state_dict(), "course": course.to_state()}
        self.checkpoints.save(trainer.steps, state)

    def version(self, trainer: Trainer, course: Course, *, last: bool) -> None:
        """Stores a version of the model after a validation, if it is the best or the last."""
        if not (course.is_best or last):
            return
        record = self.record
        trained = trainer.config()
        config: dict[str, Any] = trained | {
            "figures": course.figures,
            "preset": record.preset,
            "overrides": record.overrides,
            "corpus": {"name": record.corpus, "sha256": record.corpus_sha256},
        }
        # Stored before, by this training: perhaps on a device that sums in another order each time.
        with suppress(ConflictError):
            self._models.save(
                record.family,
                record.id,
                course.validated,
                weights=trainer.weights(),
                config=config,
                card=card(record, course, trained),
                best=course.is_best,
            )

    def listen(self, trainer: Trainer) -> None:
        """Sends sound of the step that was validated to W&B, if that hears it."""
        if self._tracker.hears:
            self._tracker.listen(trainer.steps, trainer.examples())
