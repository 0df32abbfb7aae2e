"""An order: what to train, on what, and how."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Order:
    """What to train, on what, and how."""

    family: str
    """melgan, unagan or predictor."""
    folder: Path | None
    """The recordings; None if they are a database's."""
    preset: str
    """Named settings."""
    seed: int
    """Where all chance comes from."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:1."""
    steps: int | None = None
    """None means what the preset is made for; where it does not say, `minutes` alone end it."""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Values of the preset to replace, by their path, as "generator.ngf"."""
    database: str = ""
    """The database of the store that holds the recordings; "" if they are in a folder."""
    every: int | None = None
    """Steps from one validation to the next; None means a tenth of all."""
    minutes: float | None = None
    """How long to train now, as part of all steps; None means to the end."""
