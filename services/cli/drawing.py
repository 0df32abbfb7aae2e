"""Pictures by the objects of matplotlib alone: pyplot would share state and may want a screen."""

import io
from typing import Any, Literal


def blank(width: float, height: float, *, dots_per_inch: int, is_laid_out: bool = True) -> Any:
    """An empty matplotlib Figure of that size in inches; it lays out its panels if wanted."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    layout: Literal["constrained"] | None = "constrained" if is_laid_out else None
    figure = Figure(figsize=(width, height), dpi=dots_per_inch, layout=layout)
    FigureCanvasAgg(figure)
    return figure


def as_png(figure: Any) -> bytes:
    """The figure as PNG; the same drawing gives the same bytes."""
    target = io.BytesIO()
    # No Software entry: it would change with matplotlib's version alone.
    figure.savefig(target, format="png", metadata={"Software": None})
    return target.getvalue()
