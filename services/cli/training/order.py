"""An order: what to train, on what, and how."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Order:
    """What to train, on what, and how."""

    family: str
    folder: Path
    preset: str
    seed: int
    device: str = "auto"
    steps: int | None = None
    """None means what the preset is made for."""
    overrides: Mapping[str, Any] | None = None
    """Values of the preset to replace, by name."""
