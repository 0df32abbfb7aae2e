"""Fitting: the loop around a trainer of any noun, from steps to stored models with cards."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from services.cli.progress import Reporter
from services.cli.tracking import Tracker
from services.runtime.model_store import ModelStore, ModelVersion

VALIDATIONS = 10
"""Validations in the course of a training, the last step's among them."""


class Trainer(Protocol):
    """What MelGanTrainer, UnaganTrainer and PredictorTrainer have in common."""

    def step(self) -> Mapping[str, Any]:
        """One update; its losses by name, as 0-d tensors."""

    def validate(self) -> Mapping[str, float]:
        """Figures on what was held out."""

    def weights(self) -> bytes:
        """The weights as they stand, as safetensors."""

    def config(self) -> dict[str, Any]:
        """Settings and statistics, as JSON-able values."""


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


def card(plan: Fit, step: int, figures: Mapping[str, float], seconds: float) -> str:
    """What a person wants to know of a model, as Markdown."""
    rows = "\n".join(f"| {name} | {value:.6g} |" for name, value in sorted(figures.items()))
    return (
        f"# {plan.family} {plan.model_id}, step {step}\n\n"
        f"Trained on {plan.corpus}, {step} of {plan.steps} steps, {seconds:.0f} s, "
        f"ended {datetime.now(UTC):%Y-%m-%d %H:%M} UTC. "
        f"The best step is chosen by {plan.figure} on held-out sound.\n\n"
        f"| figure | value |\n|---|---|\n{rows}\n"
    )
