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
# Figures of one column: those of a length of their own go before.
_ALIVE = {
    "variance": "variance_ratio",
    "spectrum": "spectrum_distance",
    "variance/training": "training_variance_ratio",
    "spectrum/training": "training_spectrum_distance",
    "dying": "drift_variance",
    "drift": "drift_mean",
}
_MORE = {
    "log-likelihood (nats)": "log_likelihood",
    "nearest window 1 %": "nearest_window_1",
    "held-out 1 %": "recorded_nearest_window_1",
    "near copies": "near_copy_share",
}


@dataclass(frozen=True)
class Facts:
    """What is known of a model beside its figures."""

    architecture: str
    preset: str
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
        changed = version.config.get("overrides") or {}
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
    """All that is compared, a line for each entry; figures that no entry has are left out."""
    named: dict[str, str] = {}
    for ahead in comparison.horizons:
        named[f"error at {ahead}"] = f"error_{ahead}"
    for ahead in comparison.horizons:
        named[f"statics at {ahead}"] = f"static_error_{ahead}"
    for ahead in comparison.horizons:
        named[f"CRPS at {ahead}"] = f"crps_{ahead}"
    named |= _ALIVE | {f"{name}, long": LONG + figure for name, figure in _ALIVE.items()} | _MORE
    known = {figure for entry in comparison.entries for figure in entry.figures}
    named = {name: figure for name, figure in named.items() if figure in known}
    told = ("architecture", "preset", "seed", "steps", "training", "parameters", "size")
    header = ("predictor", *(told if facts else ()), *named)
    rows = [
        (
            entry.title,
            *(_told(facts.get(entry.name)) if facts else ()),
            *(_error(entry, figure) for figure in named.values()),
        )
        for entry in comparison.entries
    ]
    return "\n".join(_line(row) for row in (header, ("---",) * len(header), *rows))


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


def _told(facts: Facts | None) -> tuple[str, ...]:
    if facts is None:
        return ("",) * 7
    return (
        facts.architecture,
        facts.preset,
        facts.seed,
        str(facts.steps),
        "" if facts.seconds is None else f"{facts.seconds:.0f} s",
        f"{facts.parameters:,}",
        f"{facts.size_bytes / 1e6:.2f} MB",
    )


def _error(entry: "Entry", figure: str) -> str:
    error = entry.figures.get(f"{figure}_standard_error")
    told = _number(entry.figures.get(figure))
    return f"{told} ± {error:.2f}" if told and error else told


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
