"""The card of a model: what a person wants to know of it, as Markdown."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.cli.training.fit import Fit


def card(plan: "Fit", step: int, figures: Mapping[str, float], seconds: float) -> str:
    """What a person wants to know of a model, as Markdown."""
    rows = "\n".join(f"| {name} | {value:.6g} |" for name, value in sorted(figures.items()))
    return (
        f"# {plan.family} {plan.model_id}, step {step}\n\n"
        f"Trained on {plan.corpus}, {step} of {plan.steps} steps, {seconds:.0f} s, "
        f"ended {datetime.now(UTC):%Y-%m-%d %H:%M} UTC. "
        f"The best step is chosen by {plan.figure} on held-out sound.\n\n"
        f"| figure | value |\n|---|---|\n{rows}\n"
    )
