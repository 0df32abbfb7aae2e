"""Pictures of a comparison of predictors, as PNG: trajectories, errors, modulation spectra."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from services.cli.drawing import as_png, blank

if TYPE_CHECKING:
    from services.cli.comparison.table import Facts
    from services.predictor.evaluation.comparison import Comparison
    from services.predictor.evaluation.ground import Entry

FEATURES = 4
"""Features whose trajectories are drawn."""
HEARD_FRAMES = 100
"""Frames before the prediction that are drawn, at most."""
REAL, TOLD = "0.6", "#b2182b"
# Okabe and Ito's colours, which most people can tell apart.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c510a")
MARKS = ("o", "D", "v", "P", "X")
BASELINES_DRAWN = ("persistence", "linear autoregression")
SHOWN = "Pictures show the first seed of each architecture and preset."
DEAD = 0.01
"""Ratios of power below this are drawn at it."""


def trajectories(comparison: "Comparison") -> bytes:
    """What was predicted beside what came: a row for each predictor, a column for each feature."""
    import numpy as np

    entries = [
        entry
        for entry in comparison.entries
        if entry.example is not None and (entry.kind == "model" or entry.name in BASELINES_DRAWN)
    ]
    names = comparison.feature_names[:FEATURES]
    heard = comparison.heard[-HEARD_FRAMES:, : len(names)]
    came = comparison.came[:, : len(names)]
    real = np.concatenate([heard, came])
    seconds = (np.arange(len(real)) - len(heard)) / comparison.frame_rate_hertz
    wide, high = 3.1 * len(names) + 2.3, 1.25 * len(entries) + 1.2
    # Every panel is alike: margins in inches do, and laying out so many takes half of the time.
    figure = blank(wide, high, dots_per_inch=100, is_laid_out=False)
    figure.subplots_adjust(
        left=2.2 / wide,
        right=1 - 0.15 / wide,
        wspace=0.15,
        bottom=0.7 / high,
        top=1 - 0.5 / high,
        hspace=0.12,
    )
    grid = figure.subplots(len(entries), len(names), sharex=True, sharey="col", squeeze=False)
    title = f"Predicted against real: {comparison.example}"
    figure.suptitle(title, y=1 - 0.1 / high, va="top", fontsize=11, parse_math=False)
    for axes, column in zip(grid[0], real.T, strict=True):
        # By what is real: a prediction that runs away leaves the panel.
        low, high = float(column.min()), float(column.max())
        room = max(high - low, 1e-6)
        axes.set_ylim(low - room / 2, high + room / 2)
    for entry, row in zip(entries, grid, strict=True):
        for number, (axes, name) in enumerate(zip(row, names, strict=True)):
            axes.plot(seconds, real[:, number], color=REAL, linewidth=0.9, label="real")
            told = () if entry.example is None else entry.example[:, number]
            axes.plot(seconds[len(heard) :], told, color=TOLD, linewidth=1.0, label="predicted")
            axes.axvline(0, color="0.3", linewidth=0.7, linestyle=":")
            axes.tick_params(labelsize=7)
            axes.set_xlim(seconds[0], seconds[-1])
            if entry is entries[0]:
                axes.set_title(name, fontsize=10)
            if entry is entries[-1]:
                axes.set_xlabel("Time from the end of what is heard (s)", fontsize=8)
        row[0].set_ylabel(
            _wrapped(entry.title), fontsize=8, rotation="horizontal", ha="right", va="center"
        )
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=2, fontsize=8)
    return as_png(figure)


def errors(comparison: "Comparison") -> bytes:
    """The error of each predictor by horizon, of all features and of the statics."""
    entries = [entry for entry in comparison.entries if entry.kind != "recordings"]
    figure = blank(11, 4.2 + _legend_inches(len(entries)), dots_per_inch=110)
    panels = figure.subplots(1, 2)
    told = (("error_", "All features"), ("static_error_", "Static coefficients"))
    for axes, (figure_name, title) in zip(panels, told, strict=True):
        for style, entry in _styled(entries):
            heights = [entry.figures[f"{figure_name}{ahead}"] for ahead in comparison.horizons]
            axes.plot(comparison.horizons, heights, label=entry.title, **style)
        axes.set_xscale("log")
        axes.set_xticks(comparison.horizons, [str(ahead) for ahead in comparison.horizons])
        axes.minorticks_off()
        known = [
            entry.figures[f"{figure_name}{ahead}"]
            for entry in entries
            if entry.kind == "baseline"
            for ahead in comparison.horizons
        ]
        # What is far worse than all baselines leaves the panel, so that the others can be told.
        axes.set_ylim(0, max(1.3 * max(known), 1e-3))
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("Frames ahead", fontsize=9)
        axes.set_ylabel("Mean squared error (variances of the training part)", fontsize=9)
        axes.grid(alpha=0.3)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8)
    return as_png(figure)


def spectra(comparison: "Comparison") -> bytes:
    """The power of trajectories, by modulation frequency, beside real ones; of long ones, too."""
    from services.predictor.evaluation.ground import LONG

    lengths = {"": comparison.frames} | (
        {LONG: comparison.long_frames} if comparison.long_frames else {}
    )
    legend = _legend_inches(len(comparison.entries) + 1)
    figure = blank(11, 3.3 * len(lengths) + 0.4 + legend, dots_per_inch=110)
    panels = figure.subplots(len(lengths), 1, squeeze=False)[:, 0]
    for axes, (prefix, frames) in zip(panels, lengths.items(), strict=True):
        _draw_spectra(axes, comparison, prefix, frames)
    panels[-1].set_xlabel("Modulation frequency (Hz)", fontsize=9)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8)
    return as_png(figure)


def _draw_spectra(axes: Any, comparison: "Comparison", prefix: str, frames: int) -> None:
    from services.predictor.evaluation.motion import band_edges, bands

    edges = band_edges(frames, comparison.frame_rate_hertz)
    names = [
        f"{prefix}spectrum_ratio_{name}" for name in bands(frames, comparison.frame_rate_hertz)
    ]
    centres = [(low * high) ** 0.5 for low, high in edges]
    axes.axhspan(0.8, 1.2, color="0.9", zorder=0, label="within 20 % of real ones")
    axes.axhline(1, color="0.4", linewidth=0.8)
    styled = [pair for pair in _styled(comparison.entries) if names[0] in pair[1].figures]
    for style, entry in styled:
        heights = [max(entry.figures[name], DEAD) for name in names]
        axes.plot(centres, heights, label=entry.title, **style)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(centres, [f"{low:.2g}–{high:.2g}" for low, high in edges])
    ticks = (DEAD, 0.03, 0.1, 0.3, 1, 3, 10)
    axes.set_yticks(ticks, [f"≤ {DEAD:g}", *(f"{tick:g}" for tick in ticks[1:])])
    axes.minorticks_off()
    highest = max(entry.figures[name] for _, entry in styled for name in names)
    axes.set_ylim(DEAD * 0.8, max(1.25 * highest, 1.6))
    axes.set_title(f"{frames} frames", fontsize=10)
    axes.set_ylabel("Power relative to real ones", fontsize=9)
    axes.grid(alpha=0.3)


PICTURES = {"trajectories.png": trajectories, "errors.png": errors, "spectra.png": spectra}


def pictures(comparison: "Comparison", facts: "Mapping[str, Facts]") -> dict[str, bytes]:
    """All of them by name; no spectra of continuations that are too short for one.

    Of the models that `facts` are known of, by name, one seed of each architecture and preset.
    """
    alive = any("spectrum_distance" in entry.figures for entry in comparison.entries)
    shown = _first_seeds(comparison, facts)
    return {name: draw(shown) for name, draw in PICTURES.items() if alive or draw is not spectra}


def _first_seeds(comparison: "Comparison", facts: "Mapping[str, Facts]") -> "Comparison":
    """The first seed of each architecture and preset, called by them; and what is no model."""
    # Not the best: chance would look like skill.
    seeds: dict[tuple[str, str], list[str]] = {}
    for known in facts.values():
        seeds.setdefault((known.architecture, known.preset), []).append(known.seed)
    first = {kind: min(given, key=lambda seed: (len(seed), seed)) for kind, given in seeds.items()}
    kinds = {
        name: kind
        for name, known in facts.items()
        if known.seed == first[kind := (known.architecture, known.preset)]
    }
    alike = Counter(kinds.values())
    titles = {
        name: ", ".join(kind if alike[kind] == 1 else (*kind, name)) for name, kind in kinds.items()
    }
    entries = [
        replace(entry, name=titles.get(entry.name, entry.name))
        for entry in comparison.entries
        if entry.name in titles or entry.name not in facts
    ]
    models = sorted((each for each in entries if each.kind == "model"), key=lambda each: each.name)
    return replace(comparison, entries=models + [each for each in entries if each.kind != "model"])


def _legend_inches(entries: int) -> float:
    return 0.6 + 0.17 * -(-entries // 3)


def _styled(entries: "list[Entry]") -> "list[tuple[dict[str, Any], Entry]]":
    """Models in colours, baselines in greys, recordings in black; dashed at temperature 1.

    An architecture has one colour, and each of its presets a mark.
    """
    colours: dict[str, str] = {}
    marked: dict[str, list[str]] = {}
    greys = ("0.7", "0.82", "0.35", "0.55")
    baselines = list(dict.fromkeys(each.name for each in entries if each.kind != "model"))
    styled = []
    for entry in entries:
        mark = {"model": "o", "baseline": "s", "extra": "^", "recordings": "*"}[entry.kind]
        if entry.kind == "model":
            architecture = entry.name.partition(", ")[0]
            colour = colours.setdefault(architecture, COLOURS[len(colours) % len(COLOURS)])
            names = marked.setdefault(architecture, [])
            if entry.name not in names:
                names.append(entry.name)
            mark = MARKS[names.index(entry.name) % len(MARKS)]
        else:
            real = entry.kind == "recordings"
            colour = "black" if real else greys[baselines.index(entry.name) % len(greys)]
        style = {
            "color": colour,
            "linestyle": "--" if entry.temperature else "-",
            "linewidth": 2.0 if entry.kind == "model" else 1.2,
            "marker": mark,
            "markersize": 4,
        }
        styled.append((style, entry))
    return styled


def _wrapped(title: str) -> str:
    """In lines short enough for a panel's side."""
    import textwrap

    return "\n".join(textwrap.wrap(title, 28))
