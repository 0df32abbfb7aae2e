"""What MelGAN, UNAGAN and predictors in training have in common: what the loop asks of them."""

from collections.abc import Mapping
from typing import Any, Protocol


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
