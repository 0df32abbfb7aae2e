"""What MelGAN, UNAGAN and predictors in training have in common: what the loop asks of them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


class Trainer(Protocol):
    """A model in training. Every step's chance follows from seed, step and rank alone."""

    steps: int
    """How many are done."""

    @property
    def waited_seconds(self) -> float:
        """How long its device has waited for data."""

    def step(self) -> "Mapping[str, Tensor]":
        """One update; losses, learning rate and gradient norms, as 0-d tensors on the device."""

    def validate(self) -> Mapping[str, float]:
        """Figures on what was held out, the smaller the better; changes nothing."""

    def weights(self) -> bytes:
        """The weights as they stand, as safetensors."""

    def config(self) -> dict[str, Any]:
        """Settings and statistics, as JSON values; `training` names the `validation_files`."""

    def examples(self) -> "Mapping[str, tuple[NDArray[np.float32], int]]":
        """Validation sound to hear: name -> (mono samples, rate in hertz)."""

    def state_dict(self) -> dict[str, Any]:
        """All that going on from here needs, fit for `torch.save` and `weights_only`."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state_dict` gave."""
