"""The table of a comparison of predictors: for the terminal, as Markdown and as JSON."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import orjson

from services.cli.listing import columns
from services.predictor.evaluation.ground import LONG

if TYPE_CHECKING:
    from services.predictor.evaluation.comparison import Comparison
    from services.predictor.evaluation.ground import Entry
    from services.runtime.model_store import ModelVersion

_SECONDS = re.compile(r"([\d.]+) s of training")
_ALIVE = {
    "variance": "variance_ratio",
    "spectrum": "spectrum_distance",
    "variance/training": "training_variance_ratio",
    "spectrum/training": "training_spectrum_distance",
    "variance drift": "drift_variance",
    "mean drift": "drift_mean",
}
_NEW = {
    "nearest window 1 %": "nearest_window_1",
    "held-out 1 %": "recorded_nearest_window_1",
    "near copies": "near_copy_share",
}
_TOLD = ("architecture", "preset", "seed", "steps", "minutes", "parameters", "size")
_KINDS = ("recordings", "baseline", "extra", "model")


@dataclass(frozen=True)
class Facts:
    """What is known of a model beside its figures."""

    architecture: str
    preset: str
    """Its name, and what was given beside it but the architecture."""
    seed: str
    steps: int
    """Of training."""
    seconds: float | None
    """Of training; None if that is not known."""
    parameters: int
    size_bytes: int

    @classmethod
    def of(cls, version: "ModelVersion", card: str, weights: bytes) -> "Facts":
        """By config, card and weights of a version."""
        from safetensors.numpy import load

        told = _SECONDS.search(card)
        changed = dict(version.config.get("overrides") or {})
        changed.pop("selected_model", None)
        training = version.config.get("training") or {}
        preset = str(version.config.get("preset", ""))
        return cls(
            architecture=str(version.config.get("architecture", "")),
            preset=", ".join([preset, *(f"{name} {value}" for name, value in changed.items())]),
            seed=str(training.get("seed", "")),
            steps=version.step,
            seconds=float(told[1]) if told else None,
            parameters=sum(tensor.size for tensor in load(weights).values()),
            size_bytes=version.size_bytes,
        )


def terminal(comparison: "Comparison") -> str:
    """Chief figures, a line for each entry."""
    header = ["predictor", *(f"error at {ahead}" for ahead in comparison.horizons)]
    header += ["variance", "spectrum", "nats"]
    rows = [
        [
            entry.title,
            *(_error(entry, f"error_{ahead}") for ahead in comparison.horizons),
            _number(entry.figures.get("variance_ratio")),
            _number(entry.figures.get("spectrum_distance")),
            _number(entry.figures.get("log_likelihood")),
        ]
        for entry in comparison.entries
    ]
    return columns(header, rows)


def markdown(comparison: "Comparison", facts: Mapping[str, Facts]) -> str:
    """All that is compared, in tables that fit on a page; what no entry has is left out.

    Baselines come first, then models by architecture, preset and seed.
    """

    def order(entry: "Entry") -> tuple[int, tuple[str, ...]]:
        told = facts.get(entry.name)
        return (
            _KINDS.index(entry.kind),
            (told.architecture, told.preset, told.seed) if told else (),
        )

    entries = sorted(comparison.entries, key=order)
    horizons = comparison.horizons
    errors = {f"error at {ahead}": f"error_{ahead}" for ahead in horizons}
    less = {
        f"less than autoregression at {ahead}": f"error_{ahead}_below_autoregression"
        for ahead in horizons
    }
    statics = {f"statics at {ahead}": f"static_error_{ahead}" for ahead in horizons}
    crps = {f"CRPS at {ahead}": f"crps_{ahead}" for ahead in horizons}
    tables = [
        ("Models", _models(entries, facts)),
        (
            "Errors",
            _table(entries, facts, errors | less | {"log-likelihood (nats)": "log_likelihood"}),
        ),
        ("Errors of the statics, and CRPS", _table(entries, facts, statics | crps)),
        ("Aliveness", _table(entries, facts, _ALIVE)),
        (
            "Aliveness of long continuations",
            _table(entries, facts, {name: LONG + figure for name, figure in _ALIVE.items()}),
        ),
        ("Distance to the training part", _table(entries, facts, _NEW)),
    ]
    return "\n\n".join(f"**{title}**\n\n{table}" for title, table in tables if table)


def as_json(comparison: "Comparison", facts: Mapping[str, Facts]) -> bytes:
    """Everything, for programs."""
    told: dict[str, Any] = {
        "frames": comparison.frames,
        "frame_rate_hertz": comparison.frame_rate_hertz,
        "horizons": comparison.horizons,
        "remarks": comparison.remarks,
        "predictors": [
            {
                "name": entry.name,
                "kind": entry.kind,
                "temperature": entry.temperature,
                "facts": asdict(facts[entry.name]) if entry.name in facts else None,
                "figures": entry.figures,
            }
            for entry in comparison.entries
        ],
    }
    return orjson.dumps(told, option=orjson.OPT_INDENT_2)


def _models(entries: Sequence["Entry"], facts: Mapping[str, Facts]) -> str:
    """What is known of the models beside their figures."""
    names = dict.fromkeys(entry.name for entry in entries if entry.name in facts)
    return _lines(("predictor", *_TOLD), [(name, *_told(facts[name])) for name in names])


def _table(entries: Sequence["Entry"], facts: Mapping[str, Facts], named: Mapping[str, str]) -> str:
    """A line for each entry that has any of these figures, a column for each that any has."""
    rows = [entry for entry in entries if any(each in entry.figures for each in named.values())]
    known = {figure for entry in rows for figure in entry.figures}
    named = {name: figure for name, figure in named.items() if figure in known}
    header = ("predictor", *(("architecture",) if facts else ()), *named)
    cells = [
        (
            entry.title,
            *((facts[entry.name].architecture if entry.name in facts else "",) if facts else ()),
            *(_error(entry, figure) for figure in named.values()),
        )
        for entry in rows
    ]
    return _lines(header, cells)


def _lines(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    return "\n".join(_line(row) for row in (header, ("---",) * len(header), *rows))


def _told(facts: Facts) -> tuple[str, ...]:
    return (
        facts.architecture,
        facts.preset,
        facts.seed,
        str(facts.steps),
        "" if facts.seconds is None else f"{facts.seconds / 60:.1f}",
        f"{facts.parameters:,}",
        f"{facts.size_bytes / 1e6:.2f} MB",
    )


def _error(entry: "Entry", figure: str) -> str:
    error = entry.figures.get(f"{figure}_standard_error")
    told = _number(entry.figures.get(figure))
    return f"{told} ± {error:.3f}" if told and error else told


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
