"""What was found out about a model, and how the store keeps it: figures, card and pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from services.runtime.model_store import ModelStore, ModelVersion

if TYPE_CHECKING:
    from services.predictor.evaluation.comparison import Comparison

HEADING = "## Judged on held-out sound"
PICTURE = "spectrogram.png"


@dataclass(frozen=True)
class Found:
    """What was found out about a model, as the store keeps it."""

    figures: Mapping[str, float]
    remarks: Sequence[str]
    """How the figures were found."""
    table: str
    """The figures as people read them, Markdown."""
    pictures: Mapping[str, bytes]
    """PNG files by name."""


def keep(version: ModelVersion, found: Found, models: ModelStore) -> ModelVersion:
    """Stores what was found in the place of what was found before; the version, with figures."""
    return models.describe(
        version,
        figures=found.figures,
        card=judged_card(models.read_card(version), found),
        pictures=found.pictures,
    )


def judged_card(card: str, found: Found) -> str:
    """The card with what was found out at its end, in the place of what was found before."""
    before = card.partition(HEADING)[0].rstrip()
    titles = {name: name.partition(".")[0].capitalize() for name in found.pictures}
    titles |= {PICTURE: "Spectrograms"} if PICTURE in titles else {}
    shown = "\n\n".join(f"![{title}]({name})" for name, title in titles.items())
    parts = (before, HEADING, *found.remarks, found.table, shown)
    return "\n\n".join(part for part in parts if part) + "\n"


def compared(comparison: "Comparison", name: str) -> Found:
    """What a comparison found out about one predictor, with the baselines' errors beside it.

    Figures at temperature 1 begin with `sampled_`, those of a baseline with its name.
    """
    from services.cli.comparison.pictures import pictures
    from services.cli.comparison.table import markdown

    entries = [each for each in comparison.entries if each.name == name or each.kind != "model"]
    figures = comparison.figures_of(name)
    for entry in entries:
        if entry.kind == "baseline":
            prefix = entry.title.replace(",", "").replace(" ", "_")
            figures |= {
                f"{prefix}_{figure}": value
                for figure, value in entry.figures.items()
                if "error" in figure or figure == "log_likelihood"
            }
    alone = replace(comparison, entries=entries)
    return Found(figures, comparison.remarks, markdown(alone, {}), pictures(alone, {}))
