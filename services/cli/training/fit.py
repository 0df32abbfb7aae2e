"""Fitting: the loop around a trainer of any noun, from steps to stored models with cards."""

import time
from dataclasses import dataclass
from pathlib import Path

from services.cli.progress import Reporter
from services.cli.training.card import card
from services.cli.training.tracking import Tracker
from services.cli.training.trainer import Trainer
from services.runtime.model_store import ModelStore, ModelVersion

VALIDATIONS = 10
"""Validations in the course of a training, the last step's among them."""


@dataclass(frozen=True)
class Fit:
    """What to fit, and how long."""

    family: str
    model_id: str
    corpus: str
    steps: int
    figure: str
    """The validation figure, the smaller the better, that `best` is chosen by."""


def fit(
    trainer: Trainer, plan: Fit, models: ModelStore, progress: Reporter, wandb_folder: Path
) -> ModelVersion:
    """Trains for `plan.steps`, stores each best step and the last, and returns the best.

    What was stored stays if it is interrupted.
    """
    every = max(plan.steps // VALIDATIONS, 1)
    best = float("inf")
    began = time.monotonic()
    name = f"training {plan.family}"
    with Tracker(
        plan.model_id,
        f"{plan.family} {plan.corpus}",
        trainer.config(),
        wandb_folder,
        progress.say,
    ) as tracker:
        progress.update(name, 0, plan.steps)
        note = ""
        for step in range(1, plan.steps + 1):
            losses = trainer.step()
            if step % every == 0 or step == plan.steps:
                # Reading a loss waits for the device, so it happens here and nowhere else.
                figures = {key: float(value) for key, value in losses.items()}
                figures |= {f"validation/{k}": v for k, v in trainer.validate().items()}
                value = figures[f"validation/{plan.figure}"]
                tracker.log(step, figures)
                if value < best or step == plan.steps:
                    config = trainer.config() | {"figures": figures}
                    models.save(
                        plan.family,
                        plan.model_id,
                        step,
                        weights=trainer.weights(),
                        config=config,
                        card=card(plan, step, figures, time.monotonic() - began),
                        best=value < best,
                    )
                best = min(best, value)
                note = f"{plan.figure} {value:.4g}"
            progress.update(name, step, plan.steps, note)
    return models.find(plan.family, plan.model_id)
