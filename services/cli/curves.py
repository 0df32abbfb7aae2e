"""The curves of a training, from its journal: a table for the terminal and a picture."""

import math
from collections.abc import Sequence
from typing import Any

from services.cli.drawing import as_png, blank
from services.cli.listing import columns
from services.cli.training.journal import Entry, series

WIDTH = 40
"""Characters of a curve in the terminal, at most."""
PANELS_A_ROW = 3
_LEVELS = "▁▂▃▄▅▆▇█"
_PLAIN_LEVELS = "_.-~=+*#"

_Points = list[tuple[int, float]]


def table(entries: Sequence[Entry], encoding: str = "utf-8") -> str:
    """Each figure's course in a line: curve, first, last and least value, and the step of that.

    A curve spans all steps of the journal and its own least and greatest value; where a figure was
    no number, or not logged, it has a gap. `encoding` is that of who reads it.
    """
    levels = _LEVELS
    try:
        levels.encode(encoding)
    except UnicodeEncodeError:
        levels = _PLAIN_LEVELS
    rows = []
    span = range(entries[0].step, entries[-1].step + 1)
    width = min(WIDTH, len(entries))
    for name, points in series(entries).items():
        known = [point for point in points if math.isfinite(point[1])]
        least = min(known, key=lambda point: point[1], default=(0, math.nan))
        rows.append(
            (
                name,
                _curve(known, span, width, levels),
                f"{points[0][1]:.4g}",
                f"{points[-1][1]:.4g}",
                f"{least[1]:.4g}",
                str(least[0]) if known else "",
            )
        )
    return columns(("figure", "course", "first", "last", "least", "at step"), rows)


def png(entries: Sequence[Entry], title: str) -> bytes:
    """A panel for each figure by step, the norms of gradients in one together, as PNG."""
    panels: dict[str, dict[str, _Points]] = {}
    for name, points in series(entries).items():
        together = name.startswith("gradient_norm/")
        panels.setdefault("gradient_norm" if together else name, {})[name] = points
    rows = math.ceil(len(panels) / PANELS_A_ROW)
    figure = blank(4.5 * PANELS_A_ROW, 2.6 * rows + 0.6, dots_per_inch=110)
    figure.suptitle(title)
    for number, (name, lines) in enumerate(panels.items(), start=1):
        _draw(figure.add_subplot(rows, PANELS_A_ROW, number), name, lines)
    return as_png(figure)


def _draw(axes: Any, name: str, lines: dict[str, _Points]) -> None:
    values = []
    for label, points in lines.items():
        steps, heights = zip(*points, strict=True)
        axes.plot(steps, heights, marker="." if len(points) < WIDTH else "", label=label)
        values += [height for height in heights if math.isfinite(height)]
    # What falls by orders of magnitude would else be a corner.
    if values and min(values) > 0 and max(values) > 100 * min(values):
        axes.set_yscale("log")
    if len(lines) > 1:
        axes.legend(fontsize="small")
    axes.set_title(name, fontsize="medium")
    axes.set_xlabel("Step")
    axes.grid(alpha=0.3)


def _curve(points: _Points, steps: range, width: int, levels: str) -> str:
    """The mean of the points that fall into each character, as a level."""
    places: list[list[float]] = [[] for _ in range(width)]
    for step, value in points:
        places[(step - steps.start) * width // len(steps)].append(value)
    means = [sum(place) / len(place) if place else math.nan for place in places]
    known = [mean for mean in means if math.isfinite(mean)]
    if not known:
        return ""
    low, span = min(known), (max(known) - min(known)) or 1.0
    return "".join(
        levels[min(int((mean - low) / span * len(levels)), len(levels) - 1)]
        if math.isfinite(mean)
        else " "
        for mean in means
    )
